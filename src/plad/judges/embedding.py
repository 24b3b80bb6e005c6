"""The embedding judge: whose answer is nearer in meaning to what other people wrote?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from plad.errors import PolicyError
from plad.judges.base import JudgeResources
from plad.judges.models import ModelJudge, batches, load_config_and_tokenizer, load_weights, longest_input
from plad.records import Example

if TYPE_CHECKING:
    from torch import Tensor


class EmbeddingJudge(ModelJudge):
    """Scores an answer by its nearness in meaning to the references other than the target."""

    type: Literal["embedding"] = "embedding"
    prefix: str = Field(default="", description="Text that the model wants before every text, such as `query: `.")

    title: ClassVar[str] = "Nearness to the references"
    needs_references: ClassVar[bool] = True
    nearness: ClassVar[str] = "nearness in meaning to the target"

    def open(self, resources: JudgeResources) -> "EmbeddingScorer":
        """Load the model; of an encoder-decoder the encoder is used.

        Raises:
            PolicyError: it has no safetensors, or not all its weights.
        """
        from transformers import AutoModel

        where = f"embedding judge {self.model}"
        config, tokenizer = load_config_and_tokenizer(self, where)
        model = load_weights(AutoModel, self, where, needs=lambda name: "pooler" not in name)  # states are read
        return EmbeddingScorer(
            Path(self.model).name,
            model.get_encoder() if config.is_encoder_decoder else model,
            tokenizer,
            prefix=self.prefix,
            batch_size=self.batch_size,
            max_length=longest_input(self.max_length, config, tokenizer),
        )


class EmbeddingScorer:
    """Scores an answer by the cosine of its mean-pooled last states with those of the nearest reference.

    A row without references can't be judged.

    Args:
        name: shown in tables.
        model: gives `last_hidden_state`; in evaluation mode.
        tokenizer: its tokenizer.
        prefix: put before every text.
        batch_size: texts a forward pass.
        max_length: most tokens of a text; None for no limit. Longer ones are cut at their end and counted.

    Source: Reimers & Gurevych, "Sentence-BERT", 2019, section 3 (MEAN pooling, cosine).
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, *, prefix: str, batch_size: int, max_length: int | None
    ) -> None:
        self.name = name
        self._model, self._tokenizer, self._prefix = model, tokenizer, prefix
        self._batch_size, self._max_length = batch_size, max_length
        self._scored = self._truncated = 0
        self._known: dict[str, Tensor] = {}  # of references: systems meet the same ones

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """Cosine of each text with its nearest reference, -1 to 1; None where its row has no references.

        Raises:
            PolicyError: the model's states are not finite.
        """
        judged = [i for i, refs in enumerate(references) if refs]
        self._scored += len(judged)
        new = list(dict.fromkeys(r for i in judged for r in references[i] if r not in self._known))
        where = {r: f"a reference of {examples[i].id}" for i in judged for r in references[i]}
        self._known.update(zip(new, self._embed(new, [where[r] for r in new]), strict=True))
        ours = self._embed([texts[i] for i in judged], [f"row {examples[i].id}" for i in judged])
        scores: list[float | None] = [None] * len(texts)
        for i, vector in zip(judged, ours, strict=True):
            scores[i] = max(float(vector @ self._known[r]) for r in references[i])
        return scores

    def describe(self) -> dict[str, JsonValue]:
        """What a reader must know to trust the scores."""
        return {
            "type": "embedding",
            "prefix": self._prefix,
            "max_length": self._max_length,
            "scored": self._scored,
            "truncated": self._truncated,
            "rule": "cosine of mean-pooled last states with the nearest reference other than the target; rows with one "
            "reference can't be judged against the target; between two systems every reference counts, and the nearer "
            "one wins; equal texts tie",
        }

    def _embed(self, texts: Sequence[str], where: Sequence[str]) -> "list[Tensor]":
        """Unit vectors [H] of texts; a text without tokens has the zero vector."""
        rows = [self._encode(text) for text in texts]
        vectors: list[Any] = [None] * len(rows)
        size = self._batch_size if self._tokenizer.pad_token_id is not None else 1
        for batch in batches([len(row["input_ids"]) for row in rows], size):
            for i, vector in zip(batch, self._forward([rows[i] for i in batch]), strict=True):
                if not vector.isfinite().all():
                    raise PolicyError(
                        f"the states of {self.name} are not finite",
                        where=where[i],
                        fix="try another model, or look at the text",
                    )
                vectors[i] = vector
        return vectors

    def _encode(self, text: str) -> dict[str, list[int]]:
        full = dict(self._tokenizer(self._prefix + text))
        if self._max_length is None or len(full["input_ids"]) <= self._max_length:
            return full
        self._truncated += 1
        return dict(self._tokenizer(self._prefix + text, truncation=True, max_length=self._max_length))

    def _forward(self, rows: list[dict[str, list[int]]]) -> "Tensor":
        import torch

        if not rows[0]["input_ids"]:  # the longest
            return torch.zeros(len(rows), self._model.config.hidden_size)
        if len(rows) == 1:
            batch = {k: torch.tensor([v]) for k, v in rows[0].items()}
        else:
            batch = dict(self._tokenizer.pad(rows, padding_side="right", return_tensors="pt"))
        batch = {k: v.to(self._model.device) for k, v in batch.items()}
        with torch.inference_mode():
            states = self._model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=-1).cpu()
