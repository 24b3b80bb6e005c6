"""How far judges agree: with each other and with people beyond chance, and with the sources of a pair."""

import itertools
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from plad.evaluate.lengths import length_edges
from plad.evaluate.metrics import Agreement
from plad.evaluate.stats import QUICK, Bootstrap, estimate, interval
from plad.evaluate.texts import count_words
from plad.pairs.build import ScoredPair
from plad.records import Judgement, Verdict

METHOD = {
    "agreement": "of two judges on the same comparisons with the target: share of equal verdicts (win, tie, loss) and "
    "Cohen's kappa, which is 0 where they agree as often as chance would have it; interval: bootstrap over prompts",
}
_CODES = {v: i for i, v in enumerate(Verdict)}


def kappas(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cohen's kappa of contingency tables.

    Args:
        tables: [..., C, C] counts; rows are one rater's verdicts, columns the other's.

    Returns:
        [...]; NaN where both raters always give one and the same verdict, so that chance explains everything.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    n = tables.sum((-2, -1))
    seen = np.trace(tables, axis1=-2, axis2=-1) / n
    chance = (tables.sum(-1) * tables.sum(-2)).sum(-1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (seen - chance) / (1 - chance)


def agreement(verdicts: Sequence[tuple[str, Verdict, Verdict]], bootstrap: Bootstrap) -> Agreement:
    """Agreement of two raters; kappa is None where it isn't defined.

    Args:
        verdicts: (prompt id, one's verdict, the other's) of each comparison; the bootstrap draws prompts.
    """
    prompts = {p: i for i, p in enumerate(dict.fromkeys(p for p, _, _ in verdicts))}
    tables = np.zeros((len(prompts), len(_CODES), len(_CODES)))
    for prompt, a, b in verdicts:
        tables[prompts[prompt], _CODES[a], _CODES[b]] += 1
    if not verdicts:
        return Agreement(same=None, kappa=None, low=None, high=None, n=0)
    total = tables.sum(0)
    same, kappa = float(np.trace(total) / len(verdicts)), float(kappas(total))
    if not np.isfinite(kappa):
        return Agreement(same=same, kappa=None, low=None, high=None, n=len(verdicts))
    drawn = np.concatenate([kappas(np.tensordot(c, tables, axes=1)) for c in bootstrap.draws(len(prompts))])
    low, high = interval(drawn[np.isfinite(drawn)])
    return Agreement(same=same, kappa=kappa, low=low, high=high, n=len(verdicts))


def agreements(judgements: Sequence[Judgement], bootstrap: Bootstrap) -> dict[str, Agreement]:
    """Agreement of any two judges over the comparisons that both judged: `J and K` -> agreement."""
    by_judge: dict[str, dict[tuple[str, str, str], Verdict]] = {}
    for j in judgements:
        by_judge.setdefault(j.judge, {})[(j.example_id, j.system, j.opponent)] = j.verdict
    return {
        f"{a} and {b}": agreement([(key[0], ours[key], theirs[key]) for key in ours if key in theirs], bootstrap)
        for (a, ours), (b, theirs) in itertools.combinations(by_judge.items(), 2)
    }


class Order(StrEnum):
    """How a scorer orders the teacher's answer and the student's."""

    TEACHER = "teacher_better"
    STUDENT = "student_better"
    TIE = "ties"
    UNJUDGED = "unjudged"


_ORDERS = {Verdict.WIN: Order.TEACHER, Verdict.LOSS: Order.STUDENT, Verdict.TIE: Order.TIE}


def preference_counts(scored: Sequence[ScoredPair]) -> dict[str, dict[str, JsonValue]]:
    """How a scorer orders pairs of the teacher and the student, and the share of wrong pseudo-pairs, also by length.

    Ties count as not wrong. Where all scores are 1 or 0, for right or wrong, ties are told apart.
    """
    known = [(s, s.comparison) for s in scored if s.comparison is not None]
    counted = Counter(_ORDERS[c.verdict] for _, c in known)
    counted[Order.UNJUDGED] = len(scored) - len(known)
    orders: dict[str, JsonValue] = {str(o): counted[o] for o in Order}
    scores = {score for _, c in known for score in (c.score, c.opponent_score)}
    if scores and scores <= {0.0, 1.0}:
        both_right = sum(c.verdict is Verdict.TIE and c.score == 1.0 for _, c in known)
        orders |= {"both_right": both_right, "both_wrong": counted[Order.TIE] - both_right}
    judged = [_Judged(s.example_id, count_words(s.student_text), c.verdict is Verdict.LOSS) for s, c in known]
    by_words: dict[str, JsonValue] = {
        name: _share([j for j in judged if j.words in words]) for name, words in _bins(judged).items()
    }
    return {"scored": {"pairs": len(scored), **orders}, "wrong": {**_share(judged), "by_words": by_words}}


class _Judged(NamedTuple):
    example_id: str
    words: int  # of the student's answer
    wrong: bool  # the student's is better


def _bins(judged: Sequence[_Judged]) -> dict[str, range]:
    """Bins of round width of the student's words, by name; empty ones among them are kept."""
    words = [j.words for j in judged]
    edges = [-1, *length_edges(words), max(words, default=-1)]
    bins = [range(low + 1, high + 1) for low, high in itertools.pairwise(edges)]
    return {f"{b[0]}-{b[-1]}": b for b in bins if b}


def _share(judged: Sequence[_Judged]) -> dict[str, JsonValue]:
    """Share of wrong pairs with its interval over prompts: {value, low, high, n (prompts), pairs, wrong (pairs)}."""
    by_prompt: dict[str, list[bool]] = {}
    for j in judged:
        by_prompt.setdefault(j.example_id, []).append(j.wrong)
    means = np.array([sum(w) / len(w) for w in by_prompt.values()], dtype=np.float64)
    return {**estimate(means, QUICK).to_json(), "pairs": len(judged), "wrong": sum(j.wrong for j in judged)}
