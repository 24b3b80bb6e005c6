"""Runs a plan: children in turn, samples into rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.data import MEGABATCH, Lengths, Pair, Question, Text, random_batches, real_text, sorted_batches
from benchmarks.generation import SLOTS, GenerateTask, GenerateVariant, generate
from benchmarks.measure import Child, Sample
from benchmarks.models import load, make_active
from benchmarks.plan import GenerateCell, Order, Plan, TrainCell
from benchmarks.results import generate_result, train_result
from benchmarks.training import TrainTask, TrainVariant, train

Say = Callable[[str], None]

_WARMUP = Lengths(24, 0, 24, 24)
_SHORT = Lengths(6, 0, 6, 6)


@dataclass(frozen=True, slots=True)
class Subject:
    """The models that are measured.

    Attributes:
        tokenizer: folder of the tokenizer that all of them share.
        models: folder by size.
        vocabulary: rows of the vocabulary by size.
    """

    tokenizer: Path
    models: Mapping[str, Path]
    vocabulary: Mapping[str, int]

    def text(self, size: str, seed: int) -> Text:
        """Real text in that size's vocabulary."""
        tokenizer = AutoTokenizer.from_pretrained(str(self.tokenizer))
        return Text(*real_text(tokenizer, self.vocabulary[size]), seed=seed)


def run(plan: Plan, subject: Subject, seed: int, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Measure everything in `plan`.

    Returns:
        {"train": rows, "generate": rows}.
    """
    trained = [row for cell in plan.train for row in run_train(cell, subject, seed, say)]
    return {
        "train": trained,
        "generate": [row for cell in plan.generate for row in run_generate(cell, subject, seed, say)],
    }


def run_train(cell: TrainCell, subject: Subject, seed: int, say: Say) -> list[dict[str, Any]]:
    """Measure one cell, one order of the data after the other."""
    text = subject.text(cell.size, seed)
    warmup = [text.pair(_WARMUP, _SHORT, cell.candidates) for _ in range(cell.batch)]
    pool = [text.pair(candidates=cell.candidates) for _ in range(MEGABATCH * cell.batch)]
    results = []
    for order in ("random", "sorted"):
        rows = [row for row in cell.rows if row.order == order]
        if not rows:
            continue
        batches = _active(subject.models[cell.size], _batches(pool, cell, order))
        variants: list[TrainVariant] = list(dict.fromkeys(v for row in rows for v in (row.ours, row.variant)))
        tasks = {
            v: TrainTask(v, subject.models[cell.size], subject.tokenizer, cell.lora, [warmup, *batches])
            for v in variants
        }
        label = f"{cell.size} size, {'LoRA' if cell.lora else 'all weights'}, {order}"
        samples = _in_turn(train, tasks, cell.rounds, label, say)
        results += [train_result(cell, row, batches, samples[row.ours], samples[row.variant]) for row in rows]
    return results


def _batches(pool: Sequence[Pair], cell: TrainCell, order: Order) -> list[list[Pair]]:
    choose = sorted_batches if order == "sorted" else random_batches
    return choose(pool, cell.batch, cell.rounds)


def _active(folder: Path, batches: Sequence[Sequence[Pair]]) -> list[list[Pair]]:
    return make_active(load(folder), batches)


def run_generate(cell: GenerateCell, subject: Subject, seed: int, say: Say) -> list[dict[str, Any]]:
    """Measure one cell of sampling, one order of the data after the other."""
    text = subject.text(cell.size, seed)
    pool = [text.question() for _ in range(MEGABATCH * SLOTS)]
    results = []
    for order in ("random", "sorted"):
        rows = [row for row in cell.rows if row.order == order]
        if not rows:
            continue
        questions = _questions(pool, cell.questions, order)
        variants: list[GenerateVariant] = list(dict.fromkeys(["plad", *(row.variant for row in rows)]))
        tasks = {v: GenerateTask(v, subject.models[cell.size], questions, cell.rounds) for v in variants}
        samples = _in_turn(generate, tasks, cell.rounds, f"{cell.size} size, sampling, {order}", say)
        results += [generate_result(cell, row, questions, samples["plad"], samples[row.variant]) for row in rows]
    return results


def _questions(pool: Sequence[Question], count: int, order: Order) -> list[Question]:
    choose = sorted_batches if order == "sorted" else random_batches
    return [question for batch in choose(pool, SLOTS, count // SLOTS) for question in batch]


def _in_turn(
    work: Callable[[Any, Any], None], tasks: Mapping[Any, Any], rounds: int, label: str, say: Say
) -> dict[Any, list[Sample]]:
    """`rounds` samples of every task; within a round the tasks follow each other, each round starting at another."""
    samples: dict[Any, list[Sample]] = {variant: [] for variant in tasks}
    order = list(tasks)
    with ExitStack() as stack:
        children = {variant: stack.enter_context(Child(work, task)) for variant, task in tasks.items()}
        for child in children.values():
            child.wait()
        for number in range(rounds):
            turn = order[number % len(order) :] + order[: number % len(order)]
            for variant in turn:
                started = time.perf_counter()
                sample = children[variant].measure()
                samples[variant].append(sample)
                if number + 1 < rounds:
                    children[variant].wait()
                wall = f"{time.perf_counter() - started:.0f} s"
                memory = "" if sample.peak is None else f", {sample.peak / 2**20:6.0f} MiB"
                say(f"{label:32} {number + 1}/{rounds}  {variant:12} {sample.seconds:6.1f} s CPU{memory}  ({wall})")
    return samples
