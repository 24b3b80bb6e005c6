"""The reward-model judge: a sequence classifier with one output scores prompt and answer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue

from plad.errors import Findings, PolicyError
from plad.judges.base import JudgeResources
from plad.judges.encode import RewardInput, choose_input
from plad.judges.models import ModelJudge, batches, load_config_and_tokenizer, load_weights, longest_input
from plad.records import Example


class RewardJudge(ModelJudge):
    """Scores an answer with a reward model: any sequence classifier with one output."""

    type: Literal["reward"] = "reward"
    input: Literal["auto", "pair", "chat", "plain"] = Field(
        default="auto",
        description="pair: prompt and answer as a text pair; chat: through the chat template; plain: prompt, blank "
        "line, answer, end of sequence. auto: as `plad reward` trained the model; else chat with a template, pair "
        "where the tokenizer marks pairs, else plain.",
    )

    title: ClassVar[str] = "Reward model"

    def check(self, findings: Findings, place: str, rows: Sequence[Example] | None, *, against_target: bool) -> None:
        """Whether the model is here."""
        before = len(findings.lines)
        super().check(findings, place, rows, against_target=against_target)
        if any(line.state == "ok" for line in findings.lines[before:]):
            findings.not_checked.append(f"{place} {self.model}: that it has exactly one output")

    def open(self, resources: JudgeResources) -> "RewardScorer":
        """Load the model: safetensors only, no remote code.

        Raises:
            PolicyError: it has other than one output, no trained output, or no safetensors.
            ConfigError: `input: chat` without a chat template.
        """
        from transformers import AutoModelForSequenceClassification

        where = f"reward model {self.model}"
        config, tokenizer = load_config_and_tokenizer(self, where)
        if config.num_labels != 1:
            raise PolicyError(
                f"a reward model has one output, this one has {config.num_labels}",
                where=where,
                fix="name a model trained to score answers (num_labels 1)",
            )
        kind = choose_input(self.input, config, tokenizer, where)
        model = _head_in_float32(load_weights(AutoModelForSequenceClassification, self, where))
        encode = RewardInput(tokenizer, kind, longest_input(self.max_length, config, tokenizer))
        return RewardScorer(Path(self.model).name, model, tokenizer, encode, batch_size=self.batch_size)


class RewardScorer:
    """Scores an answer by a reward model's only output.

    Args:
        name: shown in tables.
        model: a sequence classifier with one output, in evaluation mode.
        tokenizer: its tokenizer.
        encode: makes its inputs; those that are cut are counted.
        batch_size: answers a forward pass.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, encode: RewardInput, *, batch_size: int) -> None:
        self.name = name
        self._model, self._tokenizer, self._encode, self._batch_size = model, tokenizer, encode, batch_size
        self._scored = self._truncated = 0

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """The model's output for each text; references are not read.

        Raises:
            PolicyError: the model's output for a row is not finite.
        """
        encoded = [self._encode(example.prompt, text) for example, text in zip(examples, texts, strict=True)]
        rows = [row for row, _ in encoded]
        self._scored += len(rows)
        self._truncated += sum(cut for _, cut in encoded)
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

    def describe(self) -> dict[str, JsonValue]:
        """What a reader must know to trust the scores."""
        return {
            "type": "reward",
            "input": self._encode.kind,
            "max_length": self._encode.max_length,
            "scored": self._scored,
            "truncated": self._truncated,
            "rule": "the model's only output for prompt and answer; the higher wins, equal texts tie",
        }

    def _padded(self) -> int:
        """Rows a forward pass: a decoder finds its last token by the pad id of its config, without one it takes one."""
        pad = self._tokenizer.pad_token_id
        return self._batch_size if pad is not None and pad == self._model.config.pad_token_id else 1

    def _forward(self, rows: list[dict[str, list[int]]]) -> list[float]:
        import torch

        if len(rows) == 1:
            batch = {k: torch.tensor([v]) for k, v in rows[0].items()}
        else:
            batch = dict(self._tokenizer.pad(rows, padding_side="right", return_tensors="pt"))
        batch = {k: v.to(self._model.device) for k, v in batch.items()}
        with torch.inference_mode():
            return self._model(**batch).logits.float().squeeze(-1).tolist()


def _head_in_float32(model: Any) -> Any:
    """Let the head of a bfloat16 model compute in float32: its outputs would be rounded to 8 bits, and tie."""
    import torch

    head = getattr(model, "score", None) or getattr(model, "classifier", None)
    if head is not None and model.dtype is not torch.float32:
        head.float()
        head.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
    return model
