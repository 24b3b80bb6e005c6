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
SOURCES = (ROOT / "recipes/data/scitldr_train.jsonl.gz", ROOT / "src/plad/demo/data/train.jsonl")
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
    """A prompt with its preferred and its other completion."""

    prompt: Tokens
    chosen: Tokens
    rejected: Tokens

    @property
    def length(self) -> int:
        """Tokens of the longer sequence: what batches are sorted by."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    def swapped(self) -> "Pair":
        """The same pair, preferred the other way round."""
        return Pair(self.prompt, self.rejected, self.chosen)


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

    def pair(self, prompt: Lengths = PROMPT, completion: Lengths = COMPLETION) -> Pair:
        """A prompt and two different completions."""
        lengths = [completion.draw(self.rng) for _ in range(2)]
        return Pair(self._cut(self.prompts, prompt.draw(self.rng)), *(self._cut(self.summaries, n) for n in lengths))

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
