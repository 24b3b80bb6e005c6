"""How prompt and answer become the tokens that a reward model reads; the same in training and judging."""

from typing import Any, Literal

from plad.errors import ConfigError
from plad.records import Message, Prompt

Kind = Literal["pair", "chat", "plain"]
CONFIG_KEY = "plad_reward_input"  # in the config.json of a reward model that plad trained


class RewardInput:
    """Encodes prompt and answer.

    Args:
        tokenizer: the reward model's.
        kind: `pair` (a text pair), `chat` (the chat template) or `plain` (prompt, blank line, answer, end of sequence).
        max_length: most tokens; None for no limit. Longer inputs are cut: a pair at the end of its longer text, the
            others at their beginning, so that the answer stays.
    """

    def __init__(self, tokenizer: Any, kind: Kind, max_length: int | None) -> None:
        self._tokenizer, self.kind, self.max_length = tokenizer, kind, max_length

    def __call__(self, prompt: Prompt, answer: str) -> tuple[dict[str, list[int]], bool]:
        """The model's inputs, and whether they were cut."""
        full = self.full(prompt, answer)
        limit = self.max_length
        if limit is None or len(full["input_ids"]) <= limit:
            return full, False
        if self.kind == "pair":
            cut = self._tokenizer(flatten(prompt), answer, truncation="longest_first", max_length=limit)
            return dict(cut), True
        return {name: values[-limit:] for name, values in full.items()}, True

    def full(self, prompt: Prompt, answer: str) -> dict[str, list[int]]:
        """The model's inputs, however long."""
        if self.kind == "pair":
            return dict(self._tokenizer(flatten(prompt), answer))
        if self.kind == "chat":
            text = self._tokenizer.apply_chat_template(_messages(prompt, answer), tokenize=False)
            return dict(self._tokenizer(text, add_special_tokens=False))  # the template writes them
        start = self._tokenizer(flatten(prompt) + "\n\n")["input_ids"]
        rest = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        end = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        ids = [*start, *rest, *end]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def choose_input(asked: str, config: Any, tokenizer: Any, where: str) -> Kind:
    """The kind of input that a model takes.

    Args:
        asked: `auto` or a kind.
        config: the model's; one that plad trained says its kind.

    Raises:
        ConfigError: `chat` without a chat template.
    """
    if asked == "chat" and not tokenizer.chat_template:
        raise ConfigError("input: chat, but the tokenizer has no chat template", where=where, fix="input: pair")
    if asked != "auto":
        return asked  # type: ignore[return-value]
    trained_on = getattr(config, CONFIG_KEY, None)
    if trained_on in ("pair", "chat", "plain"):
        return trained_on
    if tokenizer.chat_template:
        return "chat"
    marks_pairs = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
    return "pair" if marks_pairs else "plain"


def flatten(prompt: Prompt) -> str:
    """A prompt as one text, for models that read a text pair.

    A plain prompt stands as it is. So does a conversation of one user turn, after its system message if it has one.
    In a longer conversation every turn starts with its role: ``User: ...``, ``Assistant: ...``.
    """
    if isinstance(prompt, str):
        return prompt
    if [m["role"] for m in prompt if m["role"] != "system"] == ["user"]:
        return "\n\n".join(m["content"] for m in prompt)
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in prompt)


def _messages(prompt: Prompt, answer: str) -> list[Message]:
    turns: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return [*turns, {"role": "assistant", "content": answer}]
