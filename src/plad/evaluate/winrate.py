"""Win rates: the share of prompts on which a judge prefers one answer to another, ties counting half."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plad.evaluate.stats import Estimate, estimate, power, sign_test_p
from plad.judges.base import Comparison, Judge, ScoringJudge, compare, compare_scores
from plad.judges.reference import ReferenceJudge
from plad.records import Example, Judgement, Verdict

POINTS = {Verdict.WIN: 1.0, Verdict.TIE: 0.5, Verdict.LOSS: 0.0}


@dataclass(frozen=True, slots=True)
class WinRate:
    """A win rate with its 95 % interval.

    Attributes:
        value: mean points a prompt (win 1, tie 0.5, loss 0); None where nothing was judged.
        low, high: interval of the value.
        n: judged prompts.
        wins, ties, losses: judged answers; they add up to n with one answer a prompt.
        unjudged: answers the judge couldn't judge.
        sign_test_p: exact p-value of "wins and losses are as likely", over prompts.
        power: see `stats.power`; the effect is the value less 0.5.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    wins: int
    ties: int
    losses: int
    unjudged: int
    sign_test_p: float | None = None
    power: Mapping[str, float | int | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As in metrics.json."""
        return {name: getattr(self, name) for name in self.__slots__}


def judgements_of(
    judge: str, system: str, opponent: str, examples: Sequence[Example], compared: Sequence[Comparison | None]
) -> list[Judgement | None]:
    """Comparisons with the names of who was compared."""
    return [
        None if c is None else Judgement(e.id, judge, system, opponent, c.verdict, c.score, c.opponent_score)
        for e, c in zip(examples, compared, strict=True)
    ]


def points_by_prompt(judgements: Sequence[Judgement | None]) -> dict[str, float]:
    """Mean points of each judged prompt."""
    points: dict[str, list[float]] = {}
    for j in judgements:
        if j is not None:
            points.setdefault(j.example_id, []).append(POINTS[j.verdict])
    return {key: sum(values) / len(values) for key, values in points.items()}


def win_rate(judgements: Sequence[Judgement | None], *, resamples: int, seed: int) -> WinRate:
    """The win rate of a system: prompts weigh the same, however many answers they have."""
    values = np.array(list(points_by_prompt(judgements).values()))
    e: Estimate = estimate(values, resamples=resamples, seed=seed)
    counts = {v: sum(j is not None and j.verdict is v for j in judgements) for v in Verdict}
    unjudged = sum(j is None for j in judgements)
    return WinRate(
        e.value,
        e.low,
        e.high,
        e.n,
        counts[Verdict.WIN],
        counts[Verdict.TIE],
        counts[Verdict.LOSS],
        unjudged,
        sign_test_p(values - 0.5),
        power(values - 0.5),
    )


def others(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    """The references of each example but its target."""
    return [e.references[1:] for e in examples]


class Judged:
    """One judge's view of a test set: a scoring judge scores the targets once, however many systems meet them."""

    def __init__(self, judge: Judge, examples: Sequence[Example]) -> None:
        self.judge = judge
        self._rows = [i for i, e in enumerate(examples) if e.target is not None]
        self._total = len(examples)
        self._examples = [examples[i] for i in self._rows]
        self._targets = [e.references[0] for e in self._examples]
        self._others = others(self._examples)
        self._target_scores = (
            judge.score(self._examples, self._targets, self._others) if isinstance(judge, ScoringJudge) else None
        )

    def against_target(self, system: str, texts: Sequence[str]) -> list[Judgement | None]:
        """One judgement an example; None where it has no target or the judge can't judge."""
        compared = self._compare([texts[i] for i in self._rows])
        out: list[Judgement | None] = [None] * self._total
        found = judgements_of(self.judge.name, system, "target", self._examples, compared)
        for i, judgement in zip(self._rows, found, strict=True):
            out[i] = judgement
        return out

    def _compare(self, answers: Sequence[str]) -> list[Comparison | None]:
        if isinstance(self.judge, ScoringJudge) and self._target_scores is not None:
            scores = self.judge.score(self._examples, answers, self._others)
            return compare_scores(answers, self._targets, scores, self._target_scores)
        return compare(self.judge, self._examples, answers, self._targets, self._others)


def reference_win_rate(
    examples: Sequence[Example], texts: Sequence[str], *, resamples: int = 2000, seed: int = 0, stemmer: bool = False
) -> WinRate:
    """Win rate against the targets by the reference judge, cheap enough to call while training.

    Args:
        examples: N prompts; those with fewer than two references stay unjudged.
        texts: N answers.
    """
    judged = Judged(ReferenceJudge(stemmer=stemmer), examples)
    return win_rate(judged.against_target("student", texts), resamples=resamples, seed=seed)


def judge_pairs(
    examples: Sequence[Example],
    teacher: Sequence[str],
    student: Sequence[str],
    judges: Sequence[Judge],
    *,
    bootstrap: int = 10_000,
    seed: int = 0,
    systems: tuple[str, str] = ("teacher", "student_sft"),
) -> tuple[dict[str, dict[str, Any]], list[Judgement]]:
    """The teacher-student win rate on the distillation prompts: how often the chosen answer is the better one.

    Args:
        examples: N prompts; one that was sampled several times stands there as often.
        teacher, student: N answers each.
        judges: each sees all references of a prompt, because neither answer is the target.
        bootstrap: resamples over prompts.
        systems: names of the two in the judgements.

    Returns:
        `teacher_student_win_rate` of metrics.json (judge -> win rate of the teacher), and the judgements.
    """
    references = [e.references for e in examples]
    rates: dict[str, dict[str, Any]] = {}
    kept: list[Judgement] = []
    for judge in judges:
        found = judgements_of(judge.name, *systems, examples, compare(judge, examples, teacher, student, references))
        rates[judge.name] = win_rate(found, resamples=bootstrap, seed=seed).to_json()
        kept += [j for j in found if j is not None]
    return rates, kept
