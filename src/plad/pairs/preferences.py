"""Real preferences among pseudo-preference pairs: how a scorer orders two answers, how often the source is wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

from plad.config.pairs import PairsSection
from plad.evaluate.texts import count_words
from plad.judges.base import Comparison
from plad.records import Verdict

RESAMPLES = 2000


class Order(StrEnum):
    """How a scorer orders the teacher's answer and the student's."""

    TEACHER = "teacher_better"
    STUDENT = "student_better"
    TIE = "ties"
    UNJUDGED = "unjudged"


class Fate(StrEnum):
    """What becomes of a pair; all but the first two are reasons to drop it."""

    KEEP = "keep"
    SWAP = "swap"
    TIE = "tie"
    UNSURE = "unsure"
    WRONG = "wrong"


_ORDERS = {Verdict.WIN: Order.TEACHER, Verdict.LOSS: Order.STUDENT, Verdict.TIE: Order.TIE}


def fate(found: Comparison | None, rules: PairsSection) -> Fate:
    """What the rules make of a pair whose teacher's answer was compared with the student's; unjudged it stays as it is.

    Source: PLaD, section 5.3 (a reward model re-ranks each pair).
    """
    if found is None:
        return Fate.KEEP
    if found.verdict is Verdict.TIE:
        return Fate.KEEP if rules.ties == "keep" else Fate.TIE
    if abs(found.score - found.opponent_score) < rules.confidence.margin:
        return Fate.KEEP if rules.confidence.below == "keep" else Fate.UNSURE
    if found.verdict is Verdict.WIN:
        return Fate.KEEP
    return {"swap": Fate.SWAP, "keep": Fate.KEEP, "drop": Fate.WRONG}[rules.confidence.wrong]


@dataclass
class Noise:
    """How often the scorer contradicts the source, over the pairs it looked at.

    Attributes:
        orders: pairs by the scorer's order.
        seen: (example id, words of the student's answer, whether the student's is better) of every judged pair.
    """

    orders: Counter[Order] = field(default_factory=Counter)
    seen: list[tuple[str, int, bool]] = field(default_factory=list)
    _scores: set[float] = field(default_factory=set)
    _right: int = 0

    def add(self, example_id: str, student_text: str, found: Comparison | None) -> None:
        """Count a pair whose teacher's answer was compared with the student's."""
        if found is None:
            self.orders[Order.UNJUDGED] += 1
            return
        self.orders[_ORDERS[found.verdict]] += 1
        self.seen.append((example_id, count_words(student_text), found.verdict is Verdict.LOSS))
        self._scores |= {found.score, found.opponent_score}
        self._right += found.verdict is Verdict.TIE and found.score == 1.0

    def counts(self) -> dict[str, Any]:
        """For the manifest: orders, and the share of wrong pseudo-pairs, overall and by length.

        Ties count as not wrong. Where all scores are 1 or 0, for right or wrong, ties are told apart.
        """
        orders: dict[str, Any] = {str(o): self.orders[o] for o in Order}
        if self._scores and self._scores <= {0.0, 1.0}:
            orders |= {"both_right": self._right, "both_wrong": self.orders[Order.TIE] - self._right}
        by_words = {name: _share([s for s in self.seen if s[1] in words]) for name, words in self._bins().items()}
        return {
            "scored": {"pairs": self.orders.total(), **orders},
            "wrong": {**_share(self.seen), "by_words": by_words},
        }

    def _bins(self) -> dict[str, range]:
        """Bins of round width of the student's words, by name; empty ones among them are kept."""
        from plad.evaluate.lengths import length_edges

        words = [n for _, n, _ in self.seen]
        edges = [-1, *length_edges(words), max(words, default=-1)]
        bins = [range(low + 1, high + 1) for low, high in pairwise(edges)]
        names = [f"{b[0]}-{b[-1]}" if b else "" for b in bins]
        return {name: b for name, b in zip(names, bins, strict=True) if name}


def _share(seen: Sequence[tuple[str, int, bool]]) -> dict[str, Any]:
    """Share of wrong pairs with its interval over prompts: {value, low, high, n (prompts), pairs, wrong (pairs)}."""
    import numpy as np

    from plad.evaluate.stats import Bootstrap, estimate

    by_prompt: dict[str, list[bool]] = {}
    for example_id, _, wrong in seen:
        by_prompt.setdefault(example_id, []).append(wrong)
    means = np.array([sum(w) / len(w) for w in by_prompt.values()], dtype=np.float64)
    found = estimate(means, Bootstrap(RESAMPLES)).to_json()
    return {**found, "pairs": len(seen), "wrong": sum(w for _, _, w in seen)}
