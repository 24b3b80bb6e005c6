"""Win rates: the share of prompts on which a judge prefers one answer to another, ties counting half."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from plad.evaluate.metrics import WinRate
from plad.evaluate.stats import DEFAULT, QUICK, Bootstrap, estimate, power, sign_test_p
from plad.evaluate.texts import count_words, repetition
from plad.judges.base import Comparison, Judge, ScoringJudge, compare, compare_scores
from plad.judges.reference import ReferenceScorer
from plad.judges.rouge import Rouge, UnicodeTokenizer
from plad.records import STUDENT, STUDENT_SFT, TARGET, TEACHER, Example, Generation, Judgement, Outcome, Verdict

POINTS = {Verdict.WIN: 1.0, Verdict.TIE: 0.5, Verdict.LOSS: 0.0}


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


def win_rate(judgements: Sequence[Judgement | None], bootstrap: Bootstrap) -> WinRate:
    """The win rate of a system: prompts weigh the same, however many answers they have."""
    values = np.array(list(points_by_prompt(judgements).values()))
    e = estimate(values, bootstrap)
    counts = {v: sum(j is not None and j.verdict is v for j in judgements) for v in Verdict}
    return WinRate(
        value=e.value,
        low=e.low,
        high=e.high,
        n=e.n,
        wins=counts[Verdict.WIN],
        ties=counts[Verdict.TIE],
        losses=counts[Verdict.LOSS],
        unjudged=sum(j is None for j in judgements),
        sign_test_p=sign_test_p(values - 0.5),
        power=power(values - 0.5),
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
        found = judgements_of(self.judge.name, system, TARGET, self._examples, compared)
        for i, judgement in zip(self._rows, found, strict=True):
            out[i] = judgement
        return out

    def _compare(self, answers: Sequence[str]) -> list[Comparison | None]:
        if isinstance(self.judge, ScoringJudge) and self._target_scores is not None:
            scores = self.judge.score(self._examples, answers, self._others)
            return compare_scores(answers, self._targets, scores, self._target_scores)
        return compare(self.judge, self._examples, answers, self._targets, self._others)


@dataclass(frozen=True, slots=True)
class Scored:
    """Systems' answers as one judge scores them, by every reference."""

    judge: str
    examples: Sequence[Example]
    texts: Mapping[str, Sequence[str]]
    scores: Mapping[str, Sequence[float | None]]

    def between(self, a: str, b: str) -> list[Judgement | None]:
        """One system against another, one judgement an example; None where the judge can't judge."""
        compared = compare_scores(self.texts[a], self.texts[b], self.scores[a], self.scores[b])
        return judgements_of(self.judge, a, b, self.examples, compared)


def judge_scores(judge: ScoringJudge, examples: Sequence[Example], written: Mapping[str, Mapping[str, str]]) -> Scored:
    """Let a judge score all systems, each once."""
    texts = {system: list(by_id.values()) for system, by_id in written.items()}
    references = [e.references for e in examples]
    scores = {system: judge.score(examples, given, references) for system, given in texts.items()}
    return Scored(judge.name, examples, texts, scores)


def reference_win_rate(
    examples: Sequence[Example], texts: Sequence[str], *, bootstrap: Bootstrap = QUICK, stemmer: bool = False
) -> WinRate:
    """Win rate against the targets by the reference judge, cheap enough to call while training.

    Args:
        examples: N prompts; those with fewer than two references stay unjudged.
        texts: N answers.
    """
    judged = Judged(ReferenceScorer(stemmer=stemmer), examples)
    return win_rate(judged.against_target(STUDENT, texts), bootstrap)


def judge_pairs(
    examples: Sequence[Example],
    teacher: Sequence[str],
    student: Sequence[str],
    judges: Sequence[Judge],
    *,
    bootstrap: Bootstrap = DEFAULT,
    systems: tuple[str, str] = (TEACHER, STUDENT_SFT),
) -> tuple[dict[str, WinRate], list[Judgement]]:
    """The teacher-student win rate on the distillation prompts: how often the chosen answer is the better one.

    Args:
        examples: N prompts; one that was sampled several times stands there as often.
        teacher, student: N answers each.
        judges: each sees all references of a prompt, because neither answer is the target.
        systems: names of the two in the judgements.

    Returns:
        The win rate of the teacher by judge, and the judgements.
    """
    references = [e.references for e in examples]
    rates: dict[str, WinRate] = {}
    kept: list[Judgement] = []
    for judge in judges:
        found = judgements_of(judge.name, *systems, examples, compare(judge, examples, teacher, student, references))
        rates[judge.name] = win_rate(found, bootstrap)
        kept += [j for j in found if j is not None]
    return rates, kept


def quick_figures(
    examples: Sequence[Example], judge: Judge | None, *, stemmer: bool = False, seed: int = 0
) -> Callable[[Sequence[Generation]], dict[str, float]]:
    """The few figures by which a checkpoint is chosen while training: of one answer an example.

    Targets are scored once, here.

    Returns:
        Figures: win_rate, low, high and n of the judge (left out where it can judge no row), rougeL (F1 against the
        best reference), words (mean) and ended (share of answers that ended by themselves).
    """
    judged = Judged(judge, examples) if judge is not None else None
    rouge, tokenize = Rouge(("rougeL",), stemmer=stemmer), UnicodeTokenizer().tokenize

    def figures(answers: Sequence[Generation]) -> dict[str, float]:
        texts = [g.text for g in answers]
        measured: dict[str, float] = {}
        if judged is not None:
            rate = win_rate(judged.against_target(STUDENT, texts), replace(QUICK, seed=seed))
            if rate.value is not None and rate.low is not None and rate.high is not None:
                measured |= {"win_rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n}
        best = [rouge.best(t, e.references) for e, t in zip(examples, texts, strict=True)]
        scored = [b["rougeL"] for b in best if b is not None]
        if scored:
            measured["rougeL"] = sum(scored) / len(scored)
        return measured | {
            "words": sum(map(count_words, texts)) / len(texts),
            "ended": sum(g.outcome is not Outcome.TRUNCATED for g in answers) / len(answers),
            "repeated": sum(repetition(tokenize(text)) for text in texts) / len(texts),
        }

    return figures
