"""How far two judges, or a judge and people, agree beyond chance."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.metrics import Agreement
from plad.evaluate.stats import Bootstrap, interval
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
