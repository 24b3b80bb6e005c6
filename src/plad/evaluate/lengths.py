"""Win rates and length: what is left of a win rate at equal length, and how it runs over lengths."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.metrics import LengthBin, LengthControlled
from plad.evaluate.stats import Bootstrap, estimate, interval, paired_difference

RESAMPLES = 1000  # refits of the regression
_RIDGE = 0.01  # inverse variance of the prior on both coefficients: they stay finite where one side always wins
_STEPS = 25
_BINS = 5  # about so many
_WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of a bin, in words

METHOD = {
    "length_controlled": "logistic regression of the points on tanh(difference in words / its standard deviation), "
    "read at difference 0, as AlpacaEval 2 but without its term for a prompt's difficulty, which needs many systems; "
    f"ridge penalty {_RIDGE} on both coefficients; interval: percentile bootstrap over prompts, {RESAMPLES} refits",
    "by_length": "bins of the words of the system's own answer (of a difference: of the first system's), the same for "
    "all systems; bins without a prompt are shown",
}


def _fit(points: NDArray[np.float64], x: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method for B weighted logistic regressions at once.

    Args:
        points: [n] in 0..1.
        x: [n].
        counts: [B, n] weight of each row.

    Returns:
        [B, 2] intercept and slope.
    """
    b = np.zeros((len(counts), 2))
    for _ in range(_STEPS):
        share = _sigmoid(b[:, :1] + b[:, 1:] * x)
        rest, bend = counts * (points - share), counts * share * (1 - share)
        gradient = np.stack([rest.sum(1), rest @ x], axis=1) - _RIDGE * b
        h00, h01, h11 = bend.sum(1) + _RIDGE, bend @ x, bend @ (x * x) + _RIDGE
        step = np.stack([h11 * gradient[:, 0] - h01 * gradient[:, 1], h00 * gradient[:, 1] - h01 * gradient[:, 0]], 1)
        step /= (h00 * h11 - h01 * h01)[:, None]
        b += np.clip(step, -2.0, 2.0)
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return b


def length_controlled(
    points: NDArray[np.float64], extra_words: NDArray[np.float64], bootstrap: Bootstrap
) -> LengthControlled:
    """The win rate that remains where both answers have the same length.

    P(win) = sigmoid(a + b tanh(d / sd(d))) is fitted to the points; its value at d = 0 is sigmoid(a).

    Args:
        points: [n] win 1, tie 0.5, loss 0, one a prompt.
        extra_words: [n] d, words of the answer less words of its opponent.
        bootstrap: of the refits, at most `RESAMPLES` of them.

    Returns:
        The win rate with its slope b. Where all points or all d are equal there is nothing to control: the plain win
        rate, slope 0. None where n is 0.

    Source: Dubois et al., "Length-Controlled AlpacaEval", 2024, Eq. 2.
    """
    n = len(points)
    x = _regressor(points, extra_words)
    if x is None:
        e = estimate(points, bootstrap)
        return LengthControlled(value=e.value, low=e.low, high=e.high, n=n, slope=0.0 if n else None)
    a, b = _fit(points, x, np.ones((1, n)))[0]
    low, high = interval(_refits(points, x, bootstrap))
    return LengthControlled(value=float(_sigmoid(a)), low=low, high=high, n=n, slope=float(b))


def length_controlled_difference(
    ours: tuple[NDArray[np.float64], NDArray[np.float64]],
    theirs: tuple[NDArray[np.float64], NDArray[np.float64]],
    bootstrap: Bootstrap,
) -> LengthControlled:
    """Length-controlled win rate of one system less another's, both against the same opponent.

    Args:
        ours, theirs: points and extra words of each, as in `length_controlled`; row i of both about the same prompt.
        bootstrap: the same rows are drawn for both.
    """
    n = len(ours[0])
    if n == 0:
        return LengthControlled(value=None, low=None, high=None, n=0)
    (a, drawn_a), (b, drawn_b) = (_with_draws(*system, bootstrap) for system in (ours, theirs))
    low, high = interval(drawn_a - drawn_b)
    return LengthControlled(value=a - b, low=low, high=high, n=n)


def _with_draws(
    points: NDArray[np.float64], extra_words: NDArray[np.float64], bootstrap: Bootstrap
) -> tuple[float, NDArray[np.float64]]:
    """The length-controlled win rate and its refits."""
    x = _regressor(points, extra_words)
    if x is None:
        x = np.zeros(len(points))  # the slope stays 0, and the intercept is the plain rate's
    value = float(_sigmoid(_fit(points, x, np.ones((1, len(points))))[0, 0]))
    return value, _refits(points, x, bootstrap)


def _regressor(points: NDArray[np.float64], extra_words: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """tanh(d / sd(d)); None where all points or all lengths agree, so that there is nothing to control."""
    if len(points) < 2 or (points == points[0]).all() or (extra_words == extra_words[0]).all():
        return None
    return np.tanh(extra_words / extra_words.std())


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def _refits(points: NDArray[np.float64], x: NDArray[np.float64], bootstrap: Bootstrap) -> NDArray[np.float64]:
    """[resamples] the win rate at equal length, each of prompts drawn with replacement."""
    fewer = replace(bootstrap, resamples=min(bootstrap.resamples, RESAMPLES))
    fits = [_fit(points, x, counts) for counts in fewer.draws(len(points))]
    return _sigmoid(np.concatenate(fits)[:, 0])


def length_edges(words: Sequence[float]) -> list[int]:
    """Edges of about five bins of round width that hold the middle 90 % of `words`; empty without words.

    A bin holds what is above its lower edge, up to and with its upper edge. The first and the last bin are open.
    """
    if not len(words):
        return []
    low, high = np.quantile(np.asarray(words, dtype=np.float64), [0.05, 0.95])
    width = next((w for w in _WIDTHS if w * _BINS >= high - low), _WIDTHS[-1])
    first = int(low // width) * width
    count = max(1, int(np.ceil((high - first) / width)))
    return [first + width * i for i in range(1, count)]


def by_length(
    values: Mapping[str, float],
    words: Mapping[str, float],
    edges: Sequence[int],
    bootstrap: Bootstrap,
    *,
    against: Mapping[str, float] | None = None,
) -> tuple[LengthBin, ...]:
    """The mean of `values` in each bin of length, with its interval.

    Args:
        values: prompt -> points.
        words: prompt -> words of the answer that decides the bin; holds every prompt of `values`.
        edges: inner edges of the bins, ascending.
        against: prompt -> points of another system; then the paired difference is given, with its p-value.
    """
    ends: list[int | None] = [None, *edges, None]
    bins: list[LengthBin] = []
    for above, to in itertools.pairwise(ends):
        inside = [
            i
            for i in values
            if (above is None or words[i] > above)
            and (to is None or words[i] <= to)
            and (against is None or i in against)
        ]
        ours = np.array([values[i] for i in inside], dtype=np.float64)
        if against is None:
            e = estimate(ours, bootstrap)
        else:
            e = paired_difference(ours, np.array([against[i] for i in inside], dtype=np.float64), bootstrap)
        bins.append(LengthBin.model_validate({"words_above": above, "words_to": to, **e.to_json()}))
    return tuple(bins)
