"""Uncertainty: bootstrap intervals of means, Wilson bounds where a bootstrap sees no spread, paired tests, power.

All functions are deterministic given a seed and never return NaN: what can't be said is None.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.metrics import Difference, Estimate, Power

SMALL = 30  # below this many prompts a figure is flagged
LEVEL = 0.95
POWER = 0.8
_Z = 1.959963984540054  # the normal's 97.5 % point
_Z_POWER = 0.8416212335729143  # the normal's 80 % point
_EXACT = 12  # non-zero differences up to which all sign patterns are enumerated
_CELLS = 4_000_000  # resampled values held at once

METHOD = {
    "level": LEVEL,
    "interval": "percentile bootstrap of the mean over prompts, all systems resampled alike (paired)",
    "interval_without_spread": "all values equal: Wilson bound on the share of prompts with that value, the rest at "
    "the ends of the scale; none where the scale has no ends (words)",
    "p_value": "paired sign-flip permutation test of the mean difference over prompts, two-sided; all sign patterns up "
    f"to {_EXACT} non-zero differences, else random ones, (b + 1) / (resamples + 1)",
    "sign_test": "exact two-sided binomial test on the prompts that moved (win rates: on those that are no tie); it "
    "counts how often one side is ahead, not by how much",
    "power": f"prompts_needed: prompts at which a two-sided test at 5 % sees the present effect with {POWER:.0%} "
    "power, were effect and spread the true ones, 7.849 sd^2 / effect^2; detectable: the effect seen so with "
    "the present prompts. A plan for the next test set, no evidence about this one",
    "small": f"n < {SMALL} is flagged",
}


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How prompts are drawn again, with replacement; the same seed draws the same prompts."""

    resamples: int = 10_000
    seed: int = 0

    def draws(self, n: int) -> Iterator[NDArray[np.float64]]:
        """[resamples, n] how often each of n prompts was drawn, in chunks of rows that memory holds."""
        rng, chunk = np.random.default_rng(self.seed), max(1, _CELLS // n)
        for start in range(0, self.resamples, chunk):
            rows = min(chunk, self.resamples - start)
            yield rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(np.float64)

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[resamples] means of prompts drawn from `values` [n]."""
        n, rng = len(values), np.random.default_rng(self.seed)
        chunk = max(1, _CELLS // n)
        means = [
            values[rng.integers(0, n, size=(min(chunk, self.resamples - start), n))].mean(axis=1)
            for start in range(0, self.resamples, chunk)
        ]
        return np.concatenate(means)


DEFAULT, QUICK = Bootstrap(), Bootstrap(2000)  # of an evaluation; of figures while training, and of pairs


def interval(draws: NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval of what was drawn; None without draws."""
    if not len(draws):
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion.

    Args:
        successes: number of successes, 0 to n.
        n: number of trials, at least 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, z2 = successes / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def estimate(
    values: NDArray[np.float64], bootstrap: Bootstrap, *, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Estimate:
    """The mean of one value a prompt, with its interval.

    Args:
        values: [n], finite.
        bounds: ends of the scale, or None where it has none.

    Raises:
        ValueError: a value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return _estimate(None, None, None, 0)
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    value = float(values.mean())
    if (values == values[0]).all():
        if bounds is None:
            return _estimate(value, None, None, n)
        value = float(values[0])
        share = wilson(n, n)[0]
        return _estimate(value, share * value + (1 - share) * bounds[0], share * value + (1 - share) * bounds[1], n)
    return _estimate(value, *interval(bootstrap.means(values)), n)


def proportion(successes: int, n: int) -> Estimate:
    """A share of n trials, with its score interval."""
    return _estimate(successes / n, *wilson(successes, n), n) if n else _estimate(None, None, None, 0)


def _estimate(value: float | None, low: float | None, high: float | None, n: int) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n)


def sign_flip_p(differences: NDArray[np.float64], bootstrap: Bootstrap) -> float | None:
    """Two-sided p-value of "the two systems are exchangeable on every prompt".

    Under it each difference is as likely to have the other sign, so p is the share of sign patterns whose sum is at
    least as far from 0 as the one observed. None without differences, 1 where all are 0.

    Args:
        differences: [n], one a prompt.
        bootstrap: of the random patterns, where there are too many to enumerate.

    Source: Fisher, "The Design of Experiments", 1935, section 21.
    """
    if len(differences) == 0:
        return None
    moved = np.abs(differences[differences != 0])
    if len(moved) == 0:
        return 1.0
    observed = abs(float(differences.sum())) * (1 - 1e-12)  # sums in another order differ in the last bits
    if len(moved) <= _EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(moved))))
        return float((np.abs(signs @ moved) >= observed).mean())
    rng = np.random.default_rng(bootstrap.seed)
    chunk = max(1, _CELLS // len(moved))
    extreme = 0
    for start in range(0, bootstrap.resamples, chunk):
        patterns = min(chunk, bootstrap.resamples - start)
        signs = rng.integers(0, 2, size=(patterns, len(moved)), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ moved) >= observed).sum())
    return (extreme + 1) / (bootstrap.resamples + 1)


def paired_difference(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    bootstrap: Bootstrap,
    *,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Difference:
    """Mean of `ours - theirs` over the same prompts, with interval and p-value.

    Args:
        ours, theirs: [n] each, row i of both about the same prompt.
        bounds: ends of the scale of the difference.
    """
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    e = estimate(differences, bootstrap, bounds=bounds)
    return Difference(p=sign_flip_p(differences, bootstrap), value=e.value, low=e.low, high=e.high, n=e.n)


def sign_test_p(differences: NDArray[np.float64]) -> float | None:
    """Exact two-sided p-value of "a prompt that moves is as likely to move up as down".

    Zeros say nothing and are left out. None without values, 1 where all are 0.

    Args:
        differences: [n], one a prompt; of a win rate, its points less 0.5.

    Source: Arbuthnott, "An argument for divine providence", 1710; Conover, "Practical Nonparametric Statistics", 3.4.
    """
    from scipy import stats  # takes half a second to import

    binomtest: Any = stats.binomtest  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # no types

    if len(differences) == 0:
        return None
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def power(differences: NDArray[np.float64]) -> Power:
    """How many prompts a test would need to see the present effect, and what it sees with the present ones.

    With the two-sided level 0.05 and power 0.8: n = (1.960 + 0.842)^2 sd^2 / effect^2.

    Args:
        differences: [n], one a prompt; their mean is the effect.

    Returns:
        None where it can't be said: without spread, and `prompts_needed` also without effect.

    Source: Lachin, "Introduction to sample size determination and power analysis", 1981.
    """
    n = len(differences)
    effect = float(differences.mean()) if n else None
    sd = float(differences.std(ddof=1)) if n > 1 else None
    if effect is None or not sd:
        return Power(effect=effect, sd=sd, prompts_needed=None, detectable=None)
    z = _Z + _Z_POWER
    needed = math.ceil((z * sd / effect) ** 2) if abs(effect) > 1e-12 else None
    return Power(effect=effect, sd=sd, prompts_needed=needed, detectable=z * sd / math.sqrt(n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that hold for all comparisons of a family together.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than the one before, or above 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
