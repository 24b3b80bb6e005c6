"""The reward-model judge: a sequence classifier with one output scores prompt and answer."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from plad.config import RewardJudge as RewardSection
from plad.errors import ConfigError, PolicyError
from plad.policy.device import choose_device, choose_dtype
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
        where = f"evaluate.judges: {section.model}"
        options: dict[str, Any] = {"revision": section.revision, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(section.model, **options)
            tokenizer = AutoTokenizer.from_pretrained(section.model, **options)
        except (OSError, ValueError) as e:
            raise PolicyError(f"can't load the reward model: {e}", where=where, fix="name a folder or hub model") from e
        if config.num_labels != 1:
            raise PolicyError(
                f"a reward model has one output, this one has {config.num_labels}",
                where=where,
                fix="name a model trained to score answers (num_labels 1)",
            )
        if section.input == "chat" and not tokenizer.chat_template:
            raise ConfigError("input: chat, but the tokenizer has no chat template", where=where, fix="input: pair")
        model = _load_weights(section, options, where)
        limits = [section.max_length, getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
        known = [n for n in limits if n is not None and 0 < n < 10**9]
        return cls(
            Path(section.model).name,
            model,
            tokenizer,
            input=section.input,
            batch_size=section.batch_size,
            max_length=min(known, default=None),
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
        for batch in self._batches([len(row["input_ids"]) for row in rows]):
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

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Row numbers of batches of like length, longest first, so that a batch too big fails at once."""
        pad = self._tokenizer.pad_token_id
        # A decoder finds its last token by the pad id of its config: without one of its own it can't be padded.
        size = self._batch_size if pad is not None and pad == self._model.config.pad_token_id else 1
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        for start in range(0, len(order), size):
            yield order[start : start + size]

    @torch.inference_mode()
    def _forward(self, rows: list[dict[str, list[int]]]) -> list[float]:
        if len(rows) == 1:
            batch = {k: torch.tensor([v]) for k, v in rows[0].items()}
        else:
            batch = dict(self._tokenizer.pad(rows, padding_side="right", return_tensors="pt"))
        batch = {k: v.to(self._model.device) for k, v in batch.items()}
        return self._model(**batch).logits.float().squeeze(-1).tolist()


def _load_weights(section: RewardSection, options: dict[str, Any], where: str) -> Any:
    device, _ = choose_device()
    dtype, _ = choose_dtype("auto", device)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            section.model, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError) as e:
        raise PolicyError(
            f"can't load the reward model's weights: {e}",
            where=where,
            fix="only safetensors are read: convert pickled weights on a machine you trust, or name another model",
        ) from e
    if info["missing_keys"]:
        raise PolicyError(
            f"the folder holds no trained weights for {', '.join(sorted(info['missing_keys'])[:3])}",
            where=where,
            fix="name a trained reward model, not its base model",
        )
    return model.to(device).eval()
