"""Sampling, by plad and by transformers' generate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from benchmarks.data import Question
from benchmarks.measure import Meter
from benchmarks.models import load
from plad.sampling.draw import Request
from plad.sampling.sample import sample

TEMPERATURE = 0.7
SLOTS = 8

GenerateVariant = Literal["plad", "generate 1", "generate 8"]


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """What a child samples.

    Attributes:
        questions: in the order in which they are asked.
        repetitions: how often.
    """

    variant: GenerateVariant
    model: Path
    questions: list[Question]
    repetitions: int


class _OwnLengths(StoppingCriteria):
    """Ends each row of a batch at its own length."""

    def __init__(self, start: int, answers: list[int]) -> None:
        self.ends = torch.tensor([start + answer for answer in answers])

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        return input_ids.shape[1] >= self.ends  # type: ignore[return-value]


def generate(meter: Meter, task: GenerateTask) -> None:
    """Run a child's repetitions."""
    model = load(task.model).eval()
    meter.model_is_loaded()
    _answer(model, task.variant, [Question(q.prompt[:16], 4) for q in task.questions[:SLOTS]], seed=0)
    for repetition in range(task.repetitions):
        meter.wait()
        tokens = _answer(model, task.variant, task.questions, seed=repetition)
        meter.report(tokens=tokens)


def _answer(model: PreTrainedModel, variant: GenerateVariant, questions: list[Question], seed: int) -> int:
    """Answer every question; returns the tokens of the answers."""
    if variant == "plad":
        counts = _slots(model, questions, seed)
    else:
        torch.manual_seed(seed)
        size = 1 if variant == "generate 1" else SLOTS
        batches = [questions[i : i + size] for i in range(0, len(questions), size)]
        counts = [count for batch in batches for count in _batch(model, batch)]
    if counts != [q.answer for q in questions]:
        raise RuntimeError(f"{variant} gave answers of {counts} tokens")
    return sum(counts)


def _slots(model: PreTrainedModel, questions: list[Question], seed: int) -> list[int]:
    counts = [0] * len(questions)
    requests = [
        Request(str(i), q.prompt, q.answer, TEMPERATURE, seed=seed * len(questions) + i)
        for i, q in enumerate(questions)
    ]

    def finished(request: Request, tokens: tuple[int, ...], seconds: float) -> None:
        counts[int(request.key)] = len(tokens)

    sample(model, requests, slots=SLOTS, eos_ids=(), on_finish=finished)
    return counts


def _batch(model: PreTrainedModel, batch: list[Question]) -> list[int]:
    """One left-padded batch through generate; a row that reached its length waits for the others."""
    longest = max(len(q.prompt) for q in batch)
    ids = torch.tensor([[0] * (longest - len(q.prompt)) + list(q.prompt) for q in batch])
    mask = torch.tensor([[0] * (longest - len(q.prompt)) + [1] * len(q.prompt) for q in batch])
    answers = [q.answer for q in batch]
    out: Tensor = model.generate(  # type: ignore[assignment]
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max(answers),
        eos_token_id=None,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([_OwnLengths(longest, answers)]),
    )
    return [min(answer, out.shape[1] - longest) for answer in answers]
