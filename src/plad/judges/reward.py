"""The reward-model judge: a sequence classifier with one output scores prompt and answer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from plad.config import RewardJudge as RewardSection
from plad.errors import ConfigError, PolicyError
from plad.judges.models import batches, load_config_and_tokenizer, load_weights, longest_input
from plad.records import Example, Message, Prompt


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


class RewardJudge:
    """Scores an answer by a reward model's only output.

    Args:
        name: shown in tables.
        model: a sequence classifier with one output, in evaluation mode.
        tokenizer: its tokenizer.
        input: `pair` (prompt and answer as a text pair) or `chat` (through the chat template).
        batch_size: answers a forward pass.
        max_length: most tokens of prompt and answer together; None for no limit. Longer inputs are cut and counted:
            a pair at the end of its longer text, a chat at its beginning.
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, *, input: str, batch_size: int, max_length: int | None
    ) -> None:
        self.name = name
        self._model, self._tokenizer, self._input = model, tokenizer, input
        self._batch_size, self._max_length = batch_size, max_length
        self._scored = self._truncated = 0

    @classmethod
    def load(cls, section: RewardSection) -> "RewardJudge":
        """Load the model a config section names: safetensors only, no remote code.

        Raises:
            PolicyError: it has other than one output, no trained output, or no safetensors.
            ConfigError: `input: chat` without a chat template.
        """
        where = f"reward model {section.model}"
        config, tokenizer = load_config_and_tokenizer(section, where)
        if config.num_labels != 1:
            raise PolicyError(
                f"a reward model has one output, this one has {config.num_labels}",
                where=where,
                fix="name a model trained to score answers (num_labels 1)",
            )
        if section.input == "chat" and not tokenizer.chat_template:
            raise ConfigError("input: chat, but the tokenizer has no chat template", where=where, fix="input: pair")
        model = _head_in_float32(load_weights(AutoModelForSequenceClassification, section, where))
        return cls(
            Path(section.model).name,
            model,
            tokenizer,
            input=section.input,
            batch_size=section.batch_size,
            max_length=longest_input(section, config, tokenizer),
        )

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """The model's output for each text; references are not read.

        Raises:
            PolicyError: the model's output for a row is not finite.
        """
        rows = [self._encode(example.prompt, text) for example, text in zip(examples, texts, strict=True)]
        scores: list[float | None] = [None] * len(rows)
        for batch in batches([len(row["input_ids"]) for row in rows], self._padded()):
            for i, score in zip(batch, self._forward([rows[i] for i in batch]), strict=True):
                if not math.isfinite(score):
                    raise PolicyError(
                        f"the reward model {self.name} gave {score}",
                        where=f"row {examples[i].id}",
                        fix="try another model, or look at the row's text",
                    )
                scores[i] = score
        return scores

    def describe(self) -> dict[str, Any]:
        """What a reader must know to trust the scores."""
        return {
            "type": "reward",
            "input": self._input,
            "max_length": self._max_length,
            "scored": self._scored,
            "truncated": self._truncated,
            "rule": "the model's only output for prompt and answer; the higher wins, equal texts tie",
        }

    def _encode(self, prompt: Prompt, answer: str) -> dict[str, list[int]]:
        limit = self._max_length
        if self._input == "pair":
            full = dict(self._tokenizer(flatten(prompt), answer))
            too_long = limit is not None and len(full["input_ids"]) > limit
            row = (
                dict(self._tokenizer(flatten(prompt), answer, truncation="longest_first", max_length=limit))
                if too_long
                else full
            )
        else:
            text = self._tokenizer.apply_chat_template(_messages(prompt, answer), tokenize=False)
            full = dict(self._tokenizer(text, add_special_tokens=False))  # the template writes them
            too_long = limit is not None and len(full["input_ids"]) > limit
            row = {k: v[-limit:] for k, v in full.items()} if too_long and limit is not None else full
        self._scored += 1
        self._truncated += too_long
        return row

    def _padded(self) -> int:
        """Rows a forward pass: a decoder finds its last token by the pad id of its config, without one it takes one."""
        pad = self._tokenizer.pad_token_id
        return self._batch_size if pad is not None and pad == self._model.config.pad_token_id else 1

    @torch.inference_mode()
    def _forward(self, rows: list[dict[str, list[int]]]) -> list[float]:
        if len(rows) == 1:
            batch = {k: torch.tensor([v]) for k, v in rows[0].items()}
        else:
            batch = dict(self._tokenizer.pad(rows, padding_side="right", return_tensors="pt"))
        batch = {k: v.to(self._model.device) for k, v in batch.items()}
        return self._model(**batch).logits.float().squeeze(-1).tolist()


def _head_in_float32(model: Any) -> Any:
    """Let the head of a bfloat16 model compute in float32: its outputs would be rounded to 8 bits, and tie."""
    head = getattr(model, "score", None) or getattr(model, "classifier", None)
    if head is not None and model.dtype is not torch.float32:
        head.float()
        head.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
    return model
