"""Likelihood calibration, a diagnostic: does a model find the better of its texts the likelier one?

Everything is measured within a prompt, between several texts of different quality, and averaged over prompts.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.metrics import (
    CalibrationChange,
    CalibrationDifference,
    Difference,
    Estimate,
    LikelihoodCalibration,
    ReliabilityBin,
)
from plad.evaluate.stats import Bootstrap, estimate, interval, paired_difference, wilson

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
METHOD = {
    "likelihood": "log P(text | prompt) of the model, end of sequence included, a token",
    "kendall": "tau-b between likelihood and quality over the texts of a prompt, mean over prompts; prompts whose "
    "texts all have one quality are left out",
    "spearman": "the same with Spearman's rank correlation",
    "pairwise_accuracy": "share of the pairs of a prompt's texts, of different quality, whose better text is the "
    "likelier one (equally likely: half), mean over prompts",
    "reliability": "of such a pair the model says with confidence sigmoid(difference in likelihood) which text is the "
    "better one; how often it is, by confidence; interval: bootstrap over prompts",
    "own": "the same on the fine-tuned student's own texts alone: without the teacher's, which distillation makes "
    "likelier on purpose",
    "ece": "expected calibration error: mean distance of confidence and accuracy over those bins, weighed by pairs",
}

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankedTexts:
    """The texts of one prompt.

    Attributes:
        likelihood: [K] log-probability a token under the model.
        quality: [K] the judge's scores.
        own: [K] whether the model that was distilled wrote the text itself; None where nobody else did.
    """

    likelihood: Array
    quality: Array
    own: NDArray[np.bool_] | None = None

    @property
    def informative(self) -> bool:
        """Whether there is an order to be found."""
        return len(self.quality) > 1 and bool((self.quality != self.quality[0]).any())

    def of_its_own(self) -> "RankedTexts":
        """The model's own texts alone."""
        return self if self.own is None else RankedTexts(self.likelihood[self.own], self.quality[self.own])

    def gaps(self) -> Array:
        """Likelihood of the better text less that of the worse one, for all pairs of different quality."""
        i, j = np.triu_indices(len(self.quality), 1)
        order = np.sign(self.quality[i] - self.quality[j])
        return ((self.likelihood[i] - self.likelihood[j]) * order)[order != 0]


def kendall(prompt: RankedTexts) -> float:
    """Kendall's tau-b; 0 where all texts are equally likely.

    Source: Kendall, "The treatment of ties in ranking problems", 1945.
    """
    return _correlation("kendalltau", prompt)


def spearman(prompt: RankedTexts) -> float:
    """Spearman's rank correlation; 0 where all texts are equally likely."""
    return _correlation("spearmanr", prompt)


def _correlation(name: str, prompt: RankedTexts) -> float:
    from scipy import stats  # takes half a second to import

    if np.ptp(prompt.likelihood) == 0:
        return 0.0
    result: Any = getattr(stats, name)(prompt.likelihood, prompt.quality)
    return float(result.statistic)


def pairwise_accuracy(prompt: RankedTexts) -> float:
    """Share of pairs of different quality in which the better text is the likelier one; ties count half."""
    gaps = prompt.gaps()
    return float((gaps > 0).mean() + 0.5 * (gaps == 0).mean())


_MEASURES: dict[str, tuple[Callable[[RankedTexts], float], tuple[float, float]]] = {
    "kendall": (kendall, (-1.0, 1.0)),
    "spearman": (spearman, (-1.0, 1.0)),
    "pairwise_accuracy": (pairwise_accuracy, (0.0, 1.0)),
}


def likelihood_calibration(prompts: Sequence[RankedTexts], bootstrap: Bootstrap) -> LikelihoodCalibration:
    """How well a model's likelihoods order the texts of a prompt.

    Args:
        prompts: those without an order to be found are counted and left out.
    """
    ordered = [p for p in prompts if p.informative]
    curve, error = reliability(ordered, bootstrap)

    def mean(name: str) -> Estimate:
        measure, bounds = _MEASURES[name]
        return estimate(np.array([measure(p) for p in ordered]), bootstrap, bounds=bounds)

    return LikelihoodCalibration(
        kendall=mean("kendall"),
        spearman=mean("spearman"),
        pairwise_accuracy=mean("pairwise_accuracy"),
        ece=error,
        reliability=curve,
        pairs=sum(row.pairs for row in curve),
        no_order=len(prompts) - len(ordered),
    )


def calibration_difference(
    after: Sequence[RankedTexts], before: Sequence[RankedTexts], bootstrap: Bootstrap
) -> CalibrationDifference:
    """What changed between two models on the same texts, paired over prompts, with p-values.

    The difference in `ece` has an interval and no p-value: it isn't a mean over prompts.
    """
    both = [(a, b) for a, b in zip(after, before, strict=True) if a.informative]

    def change(name: str) -> Difference:
        measure, (low, high) = _MEASURES[name]
        ours, theirs = (np.array([measure(pair[k]) for pair in both]) for k in (0, 1))
        return paired_difference(ours, theirs, bootstrap, bounds=(low - high, high - low))

    errors = [_errors([pair[k] for pair in both], _weights(len(both), bootstrap)) for k in (0, 1)]
    e = _error_estimate(errors[0] - errors[1], len(both))
    return CalibrationDifference(
        kendall=change("kendall"),
        spearman=change("spearman"),
        pairwise_accuracy=change("pairwise_accuracy"),
        ece=Difference(p=None, value=e.value, low=e.low, high=e.high, n=e.n),
    )


def calibration_change(
    before: Sequence[RankedTexts], after: Sequence[RankedTexts], bootstrap: Bootstrap
) -> CalibrationChange:
    """Likelihood calibration of two models on the same texts, and the difference of the second less the first."""
    return CalibrationChange(
        before=likelihood_calibration(before, bootstrap),
        after=likelihood_calibration(after, bootstrap),
        difference=calibration_difference(after, before, bootstrap),
    )


def reliability(prompts: Sequence[RankedTexts], bootstrap: Bootstrap) -> tuple[tuple[ReliabilityBin, ...], Estimate]:
    """Confidence against accuracy by bin, those without pairs included, and the expected calibration error.

    Args:
        prompts: P, each with an order to be found.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017; confidence as in Bradley & Terry, 1952.
    """
    count, sure, right = _binned(prompts)
    weights = _weights(len(prompts), bootstrap)
    counts, rights = weights[1:] @ count, weights[1:] @ right
    curve = tuple(
        _bin(ends, count[:, k], sure[:, k], right[:, k], rights[counts[:, k] > 0, k] / counts[counts[:, k] > 0, k])
        for k, ends in enumerate(itertools.pairwise(EDGES))
    )
    return curve, _error_estimate(_errors(prompts, weights), len(prompts))


def _binned(prompts: Sequence[RankedTexts]) -> tuple[Array, Array, Array]:
    """[P, bins] each: pairs, sum of their confidences, pairs whose better text is the likelier one."""
    count, sure, right = (np.zeros((len(prompts), len(EDGES) - 1)) for _ in range(3))
    for i, prompt in enumerate(prompts):
        gaps = prompt.gaps()
        confidence = 1 / (1 + np.exp(-np.abs(gaps)))
        bins = np.minimum(np.searchsorted(EDGES, confidence, side="right") - 1, len(EDGES) - 2)
        np.add.at(count[i], bins, 1.0)
        np.add.at(sure[i], bins, confidence)
        np.add.at(right[i], bins, (gaps > 0) + 0.5 * (gaps == 0))
    return count, sure, right


def _weights(prompts: int, bootstrap: Bootstrap) -> Array:
    """[1 + resamples, P] how often each prompt counts: once, and then as it was drawn with replacement."""
    if not prompts:
        return np.zeros((1, 0))
    return np.concatenate([np.ones((1, prompts)), *bootstrap.draws(prompts)])


def _errors(prompts: Sequence[RankedTexts], weights: Array) -> Array:
    """Expected calibration error under each row of weights: sum_b (n_b / n) |accuracy_b - confidence_b|."""
    if not prompts:
        return np.zeros(0)
    count, sure, right = (weights @ part for part in _binned(prompts))
    return np.abs(right - sure).sum(-1) / count.sum(-1)


def _error_estimate(errors: Array, prompts: int) -> Estimate:
    """From the error, or a difference of errors, on the prompts as they are and on each resample."""
    if not len(errors):
        return Estimate(value=None, low=None, high=None, n=prompts)
    low, high = interval(errors[1:])
    return Estimate(value=float(errors[0]), low=low, high=high, n=prompts)


def _bin(ends: tuple[float, float], count: Array, sure: Array, right: Array, drawn: Array) -> ReliabilityBin:
    """From pairs, confidences and right pairs by prompt, and the accuracies of the resamples that have pairs here."""
    start, end = ends
    pairs = int(count.sum())
    if not pairs:
        return ReliabilityBin(start=start, end=end, confidence=None, value=None, low=None, high=None, pairs=0)
    value = float(right.sum() / pairs)
    if value in (0.0, 1.0):  # a bootstrap sees no spread
        prompts = int((count > 0).sum())
        low, high = wilson(value * prompts, prompts)
    else:
        low, high = interval(drawn)
    confidence = float(sure.sum() / pairs)
    return ReliabilityBin(start=start, end=end, confidence=confidence, value=value, low=low, high=high, pairs=pairs)
