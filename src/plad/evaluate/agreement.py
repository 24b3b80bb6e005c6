"""How far two judges, or a judge and people, agree beyond chance."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.stats import LEVEL
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


def agreement(verdicts: Sequence[tuple[str, Verdict, Verdict]], *, resamples: int, seed: int) -> dict[str, Any]:
    """Agreement of two raters.

    Args:
        verdicts: (prompt id, one's verdict, the other's) of each comparison; the bootstrap draws prompts.

    Returns:
        `same` (share of equal verdicts), `kappa` with `low` and `high`, `n` (comparisons); kappa is None where it isn't
        defined.
    """
    prompts = {p: i for i, p in enumerate(dict.fromkeys(p for p, _, _ in verdicts))}
    tables = np.zeros((len(prompts), len(_CODES), len(_CODES)))
    for prompt, a, b in verdicts:
        tables[prompts[prompt], _CODES[a], _CODES[b]] += 1
    out: dict[str, Any] = {"same": None, "kappa": None, "low": None, "high": None, "n": len(verdicts)}
    if not verdicts:
        return out
    total = tables.sum(0)
    out["same"] = float(np.trace(total) / len(verdicts))
    value = float(kappas(total))
    if not np.isfinite(value):
        return out
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), size=resamples)
    drawn = kappas(np.tensordot(counts, tables, axes=1))
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - LEVEL) / 2
    low, high = map(float, np.quantile(drawn, [tail, 1 - tail])) if len(drawn) else (None, None)
    return out | {"kappa": value, "low": low, "high": high}


def agreements(judgements: Sequence[Judgement], *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Agreement of any two judges over the comparisons that both judged: `J and K` -> agreement."""
    by_judge: dict[str, dict[tuple[str, str, str], Verdict]] = {}
    for j in judgements:
        by_judge.setdefault(j.judge, {})[(j.example_id, j.system, j.opponent)] = j.verdict
    return {
        f"{a} and {b}": agreement(
            [(key[0], ours[key], theirs[key]) for key in ours if key in theirs], resamples=resamples, seed=seed
        )
        for (a, ours), (b, theirs) in itertools.combinations(by_judge.items(), 2)
    }
