"""Prompts, pairs and requests of the lengths of the paper's summarization task, cut from real text."""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT / "recipes/data/scitldr_train.jsonl.gz", ROOT / "src/plad/extras/demo/data/train.jsonl")
MEGABATCH = 50  # transformers' group_by_length sorts within 50 batches

Tokens = tuple[int, ...]
Row = TypeVar("Row", "Pair", "Question")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Normal distribution of a length in tokens, clipped."""

    mean: float
    deviation: float
    low: int
    high: int

    def draw(self, rng: random.Random) -> int:
        """One length."""
        return round(min(max(rng.gauss(self.mean, self.deviation), self.low), self.high))


PROMPT = Lengths(350, 90, 120, 512)
COMPLETION = Lengths(35, 9, 10, 60)


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with its preferred and its other completion.

    Attributes:
        others: more completions to which the preferred one is preferred.
        reference: what the margin loss compares completions with.
    """

    prompt: Tokens
    chosen: Tokens
    rejected: Tokens
    others: tuple[Tokens, ...] = ()
    reference: Tokens = ()

    @property
    def length(self) -> int:
        """Tokens of the longer sequence: what batches are sorted by."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def completions(self) -> tuple[Tokens, ...]:
        """All of them, the preferred one first."""
        return (self.chosen, self.rejected, *self.others)

    def preferring(self, index: int) -> "Pair":
        """The same texts, with the completion `index` as the preferred one."""
        texts = self.completions
        rejected, *others = (*texts[:index], *texts[index + 1 :])
        return Pair(self.prompt, texts[index], rejected, tuple(others), self.reference)

    def each(self) -> list["Pair"]:
        """One pair for every completion that the preferred one is preferred to."""
        return [Pair(self.prompt, self.chosen, text) for text in self.completions[1:]]


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and the number of tokens its answer has."""

    prompt: Tokens
    answer: int

    @property
    def length(self) -> int:
        """What batches are sorted by."""
        return len(self.prompt)


def real_text(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int, rows: int = 400
) -> tuple[list[Tokens], list[Tokens]]:
    """Token ids of SciTLDR's prompts and summaries, taken modulo the size of a cut vocabulary."""
    source = next(path for path in SOURCES if path.is_file())
    with gzip.open(source, "rt") if source.suffix == ".gz" else source.open() as lines:
        read = [json.loads(line) for line, _ in zip(lines, range(rows), strict=False)]

    def ids(text: str) -> Tokens:
        return tuple(i % vocabulary for i in tokenizer(text, add_special_tokens=False)["input_ids"])

    return [ids(row["prompt"]) for row in read], [ids(row["references"][0]) for row in read]


class Text:
    """Draws token sequences of a wanted length: a real text from its beginning, followed by the next ones."""

    def __init__(self, prompts: list[Tokens], summaries: list[Tokens], seed: int) -> None:
        self.prompts, self.summaries = prompts, summaries
        self.rng = random.Random(seed)

    def _cut(self, texts: list[Tokens], length: int) -> Tokens:
        at, out = self.rng.randrange(len(texts)), []
        while len(out) < length:
            out += texts[at % len(texts)]
            at += 1
        return tuple(out[:length])

    def pair(self, prompt: Lengths = PROMPT, completion: Lengths = COMPLETION, candidates: int = 2) -> Pair:
        """A prompt, its different completions, and a reference."""
        lengths = [completion.draw(self.rng) for _ in range(candidates + 1)]
        chosen, rejected, *others, reference = (self._cut(self.summaries, n) for n in lengths)
        return Pair(self._cut(self.prompts, prompt.draw(self.rng)), chosen, rejected, tuple(others), reference)

    def question(self, prompt: Lengths = PROMPT, completion: Lengths = COMPLETION) -> Question:
        """A prompt and a length of its answer."""
        return Question(self._cut(self.prompts, prompt.draw(self.rng)), completion.draw(self.rng))


def random_batches(pool: Sequence[Row], size: int, count: int) -> list[list[Row]]:
    """The first `count` batches of a pool in the order in which it was drawn."""
    return [list(pool[i * size : (i + 1) * size]) for i in range(count)]


def sorted_batches(pool: Sequence[Row], size: int, count: int) -> list[list[Row]]:
    """`count` batches of neighbours in length, at evenly spaced ranks of the sorted pool."""
    ranked = sorted(pool, key=lambda row: row.length)
    batches = len(ranked) // size
    starts = [int((i + 0.5) / count * batches) * size for i in range(count)]
    return [ranked[start : start + size] for start in starts]
