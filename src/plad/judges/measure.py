"""What decides, by the shape of the data: whose weights are kept, and which of two systems is better; in words.

| a row has | weights on validation, trials, rounds | two systems on the test set |
|---|---|---|
| what the first judge needs to meet the target | win rate against the human target | the same, as a difference |
| one reference, and the judge wants more | ROUGE-L | the judge, system against system: the nearer to the target wins |
| a reference, and there is no judge | ROUGE-L | ROUGE-L |
| nothing | nothing: the last weights are kept | nothing |

A judge decides where it can judge at least half of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plad.config.judges import JudgeSection
from plad.judges.base import kind_of
from plad.records import Example

BETTER_MEASURE = (
    "evaluate.judges: [{type: llm, base_url: ..., model: ...}] (a server that compares two answers)\n"
    "or [{type: reward, model: FOLDER}] (`plad reward` trains one)\n"
    "or further references a row, as a list in data.columns.reference"
)


@dataclass(frozen=True, slots=True)
class Measure:
    """What decides.

    Attributes:
        name: win_rate: against the human target; against: one system against the other; rougeL; none: nothing can.
        words: as logs, manifest and reports call it.
        likeness: whether it sees no more than likeness to one text.
    """

    name: Literal["win_rate", "against", "rougeL", "none"]
    words: str
    likeness: bool = False

    @property
    def title(self) -> str:
        """The words as they begin a sentence."""
        return self.words[:1].upper() + self.words[1:]


def most(judged: int, rows: int) -> bool:
    """Whether so many rows are enough for a judge to decide."""
    return judged > 0 and 2 * judged >= rows


def against_target(judge: str) -> Measure:
    """Win rates of each system against the human target."""
    return Measure("win_rate", f"win rate against the human target, judge {judge}")


def against_each_other(judge: str, kind: type[JudgeSection] | None) -> Measure:
    """Win rates of one system against another.

    Args:
        kind: of the judge; None where its package is no longer installed.
    """
    nearness = kind.nearness if kind is not None else ""
    words = f"{nearness}, system against system" if nearness else f"judge {judge}, system against system"
    return Measure("against", words, likeness=bool(nearness))


def by_rouge(references: int) -> Measure:
    """ROUGE-L, where a row has at most so many references."""
    return Measure("rougeL", f"ROUGE-L with the {'references' if references > 1 else 'target'}", likeness=True)


NOTHING = Measure("none", "nothing: there is no reference, and no judge that does without", likeness=True)


def of_weights(judges: Sequence[JudgeSection], rows: Sequence[Example]) -> Measure:
    """What weights, students and trials are compared by on validation rows: the first judge, or ROUGE-L."""
    if judges and most(kind_of(judges[0]).able(rows, against_target=True), len(rows)):
        return against_target(judges[0].tag())
    references = max((len(e.references) for e in rows), default=0)
    return by_rouge(references) if references else NOTHING


def of_systems(judges: Sequence[JudgeSection], rows: Sequence[Example], *, rouge: bool = True) -> Measure:
    """What will say on the test rows whether the student is better."""
    for judge in judges:
        if most(kind_of(judge).able(rows, against_target=True), len(rows)):
            return against_target(judge.tag())
    for judge in judges:
        if kind_of(judge).able(rows, against_target=False):
            return against_each_other(judge.tag(), type(judge))
    references = max((len(e.references) for e in rows), default=0)
    return by_rouge(references) if rouge and references else NOTHING
