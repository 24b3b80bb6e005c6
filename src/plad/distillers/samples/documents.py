"""Plain text to go on learning from beside the rollouts."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from plad.distillers.logits.losses import Document


def documents(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> list[Document]:
    """Plain text, cut into stretches of at most `length` tokens; each is predicted from its first token on."""
    stretches: list[Document] = []
    for i, text in enumerate(texts):
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
        for start in range(0, len(ids), length):
            part = tuple(ids[start : start + length])
            if len(part) > 1:
                stretches.append(Document(f"document {i}:{start}", part[:1], (part[1:],), chosen=0))
    return stretches
