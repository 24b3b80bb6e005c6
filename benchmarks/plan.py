"""What is compared, and the target of each comparison."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from benchmarks.generation import GenerateVariant
from benchmarks.training import TrainVariant

Order = Literal["random", "sorted"]
Size = Literal["third", "full", "t5-small", "t5-large/8"]


@dataclass(frozen=True, slots=True)
class Target:
    """Least speed ratio, most memory ratio."""

    speed: float
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One comparison of training steps.

    Attributes:
        against: as printed.
        ours: what is compared with `variant`.
        same_loss: whether both compute the same loss, so that it is compared.
    """

    against: str
    variant: TrainVariant
    order: Order
    target: Target | None = None
    same_loss: bool = True
    ours: TrainVariant = "plad"


@dataclass(frozen=True, slots=True)
class GenerateRow:
    """One comparison of sampling."""

    against: str
    variant: GenerateVariant
    order: Order
    target: Target | None = None


TRAIN_ROWS = (
    TrainRow("TRL CPOTrainer, random order", "cpo", "random", Target(2.5, 0.4)),
    TrainRow("TRL CPOTrainer, sorted by length", "cpo", "sorted", Target(2.2)),
    TrainRow("TRL DPOTrainer, zero reference, as on CPU", "dpo", "random"),
    TrainRow("TRL DPOTrainer, zero reference, GPU's head, random order", "dpo compact", "random", Target(1.8, 0.65)),
    TrainRow("TRL DPOTrainer, zero reference, GPU's head, sorted", "dpo compact", "sorted", Target(1.8, 0.65)),
    TrainRow("TRL DPOTrainer, its defaults", "dpo defaults", "random", Target(3.0), same_loss=False),
    TrainRow("plad, packed rows of 4096 tokens", "plad packed", "random"),
)

CANDIDATES_ROWS = (
    TrainRow("4 candidates a prompt: TRL CPOTrainer, its 3 pairs each", "cpo", "random", Target(5.0, 0.4)),
    TrainRow(
        "4 candidates a prompt: TRL DPOTrainer, zero reference, GPU's head", "dpo compact", "random", Target(4.0, 0.4)
    ),
)

MARGIN_ROWS = (
    TrainRow("margin, frozen scores: plad's rank", "plad", "random", Target(0.95), same_loss=False, ours="plad margin"),
    TrainRow(
        "margin, live scores: plad's rank", "plad", "random", Target(0.87), same_loss=False, ours="plad margin live"
    ),
)

ENCODER_DECODER_ROWS = (
    TrainRow("encoder-decoder: TRL CPOTrainer, random order", "cpo", "random", Target(2.0)),
    TrainRow("encoder-decoder: TRL CPOTrainer, sorted by length", "cpo", "sorted"),
)
"""CPOTrainer encodes a prompt with each of its completions, in one padded batch; DPOTrainer has no encoder-decoders."""

GENERATE_ROWS = (
    GenerateRow("transformers generate, batch 1", "generate 1", "random"),
    GenerateRow("transformers generate, batch 8, data order", "generate 8", "random", Target(1.45, 0.5)),
    GenerateRow("transformers generate, batch 8, sorted by length", "generate 8", "sorted", Target(1.35, 0.5)),
)


@dataclass(frozen=True, slots=True)
class TrainCell:
    """Comparisons that are measured in turn.

    Attributes:
        batch: prompts a step.
        rounds: steps of each variant, each on a batch of its own.
        candidates: completions a prompt, one of them preferred to the others.
    """

    size: Size
    lora: bool
    batch: int
    rounds: int
    rows: tuple[TrainRow, ...]
    candidates: int = 2


@dataclass(frozen=True, slots=True)
class GenerateCell:
    """Comparisons of sampling that are measured in turn."""

    size: Size
    questions: int
    rounds: int
    rows: tuple[GenerateRow, ...] = GENERATE_ROWS


Cell = TypeVar("Cell", TrainCell, GenerateCell)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of the benchmark."""

    train: tuple[TrainCell, ...]
    generate: tuple[GenerateCell, ...]


def only(plan: Plan, text: str) -> Plan:
    """The part of a plan whose comparisons hold `text` in their names."""
    return Plan(tuple(_cut(plan.train, text)), tuple(_cut(plan.generate, text)))


def _cut(cells: tuple[Cell, ...], text: str) -> Iterator[Cell]:
    for cell in cells:
        rows = tuple(row for row in cell.rows if text in row.against)
        if rows:
            yield replace(cell, rows=rows)  # type: ignore[arg-type]


def _named(*variants: tuple[TrainVariant, Order]) -> tuple[TrainRow, ...]:
    return tuple(row for row in TRAIN_ROWS if (row.variant, row.order) in variants)


FULL = Plan(
    train=(
        TrainCell("third", lora=False, batch=4, rounds=2, rows=TRAIN_ROWS),
        TrainCell("third", lora=True, batch=4, rounds=1, rows=TRAIN_ROWS),
        TrainCell("third", lora=False, batch=4, rounds=3, rows=MARGIN_ROWS),
        TrainCell("third", lora=False, batch=2, rounds=2, rows=CANDIDATES_ROWS, candidates=4),
        TrainCell("t5-large/8", lora=False, batch=4, rounds=3, rows=ENCODER_DECODER_ROWS),
        TrainCell("t5-small", lora=False, batch=4, rounds=5, rows=ENCODER_DECODER_ROWS[:1]),
        TrainCell("t5-small", lora=True, batch=4, rounds=3, rows=ENCODER_DECODER_ROWS[:1]),
        TrainCell("full", lora=False, batch=2, rounds=1, rows=_named(("cpo", "random"), ("dpo compact", "sorted"))),
    ),
    generate=(
        GenerateCell("third", questions=16, rounds=1),
        GenerateCell("full", questions=8, rounds=1, rows=GENERATE_ROWS[1:]),
    ),
)

QUICK = Plan(
    train=(TrainCell("third", lora=False, batch=2, rounds=1, rows=_named(("cpo", "random"))),),
    generate=(GenerateCell("third", questions=8, rounds=1, rows=GENERATE_ROWS[1:2]),),
)
