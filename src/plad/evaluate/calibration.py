"""Calibration of likelihoods: does a model find the better of its texts the likelier one?

Everything is measured within a prompt, between several texts of different quality, and averaged over prompts.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.evaluate.stats import LEVEL, estimate, paired_difference, wilson

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
class Candidates:
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

    def of_its_own(self) -> "Candidates":
        """The model's own texts alone."""
        return self if self.own is None else Candidates(self.likelihood[self.own], self.quality[self.own])

    def gaps(self) -> Array:
        """Likelihood of the better text less that of the worse one, for all pairs of different quality."""
        i, j = np.triu_indices(len(self.quality), 1)
        order = np.sign(self.quality[i] - self.quality[j])
        return ((self.likelihood[i] - self.likelihood[j]) * order)[order != 0]


def kendall(prompt: Candidates) -> float:
    """Kendall's tau-b; 0 where all texts are equally likely.

    Source: Kendall, "The treatment of ties in ranking problems", 1945.
    """
    return _correlation("kendalltau", prompt)


def spearman(prompt: Candidates) -> float:
    """Spearman's rank correlation; 0 where all texts are equally likely."""
    return _correlation("spearmanr", prompt)


def _correlation(name: str, prompt: Candidates) -> float:
    from scipy import stats  # takes half a second to import

    if np.ptp(prompt.likelihood) == 0:
        return 0.0
    result: Any = getattr(stats, name)(prompt.likelihood, prompt.quality)
    return float(result.statistic)


def pairwise_accuracy(prompt: Candidates) -> float:
    """Share of pairs of different quality in which the better text is the likelier one; ties count half."""
    gaps = prompt.gaps()
    return float((gaps > 0).mean() + 0.5 * (gaps == 0).mean())


_MEASURES: dict[str, tuple[Callable[[Candidates], float], tuple[float, float]]] = {
    "kendall": (kendall, (-1.0, 1.0)),
    "spearman": (spearman, (-1.0, 1.0)),
    "pairwise_accuracy": (pairwise_accuracy, (0.0, 1.0)),
}


def calibration(prompts: Sequence[Candidates], *, resamples: int, seed: int) -> dict[str, Any]:
    """How well a model's likelihoods order the texts of a prompt.

    Args:
        prompts: those without an order to be found are counted and left out.
        resamples, seed: of the bootstrap.

    Returns:
        `kendall`, `spearman`, `pairwise_accuracy` and `ece` as estimates; `reliability` (see there); `pairs`; and
        `no_order`, the number of prompts left out.
    """
    ordered = [p for p in prompts if p.informative]
    curve, error = reliability(ordered, resamples=resamples, seed=seed)
    return {
        **{
            name: estimate(np.array([f(p) for p in ordered]), resamples=resamples, seed=seed, bounds=bounds).to_json()
            for name, (f, bounds) in _MEASURES.items()
        },
        "ece": error,
        "reliability": curve,
        "pairs": sum(row["pairs"] for row in curve),
        "no_order": len(prompts) - len(ordered),
    }


def calibration_difference(
    after: Sequence[Candidates], before: Sequence[Candidates], *, resamples: int, seed: int
) -> dict[str, Any]:
    """What changed between two models on the same texts, paired over prompts, with p-values.

    The difference in `ece` has an interval and no p-value: it isn't a mean over prompts.
    """
    both = [(a, b) for a, b in zip(after, before, strict=True) if a.informative]
    found: dict[str, Any] = {
        name: {
            "p": None,
            **paired_difference(
                np.array([f(a) for a, _ in both]),
                np.array([f(b) for _, b in both]),
                resamples=resamples,
                seed=seed,
                bounds=(low - high, high - low),
            ).to_json(),
        }
        for name, (f, (low, high)) in _MEASURES.items()
    }
    errors = [_errors([pair[k] for pair in both], _weights(len(both), resamples, seed)) for k in (0, 1)]
    return found | {"ece": {"p": None, **_error_estimate(errors[0] - errors[1], len(both))}}


def before_and_after(by_model: Mapping[str, Sequence[Candidates]], *, resamples: int, seed: int) -> dict[str, Any]:
    """`calibration` of two models on the same texts, and the `difference` of the second less the first.

    Args:
        by_model: of the model before and after, in this order.
    """
    before, after = by_model.values()
    return {
        **{name: calibration(prompts, resamples=resamples, seed=seed) for name, prompts in by_model.items()},
        "difference": calibration_difference(after, before, resamples=resamples, seed=seed),
    }


def reliability(
    prompts: Sequence[Candidates], *, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Confidence against accuracy, and the expected calibration error.

    Args:
        prompts: P, each with an order to be found.

    Returns:
        A row a bin (`from`, `to`, `confidence`: mean, `value`: accuracy, `low`, `high`, `pairs`), bins without pairs
        included; and the error as an estimate.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017; confidence as in Bradley & Terry, 1952.
    """
    count, sure, right = _binned(prompts)
    weights = _weights(len(prompts), resamples, seed)
    counts, rights = weights[1:] @ count, weights[1:] @ right
    curve = [
        {"from": a, "to": b, **_bin(count[:, k], sure[:, k], right[:, k], counts[:, k], rights[:, k])}
        for k, (a, b) in enumerate(itertools.pairwise(EDGES))
    ]
    return curve, _error_estimate(_errors(prompts, weights), len(prompts))


def _binned(prompts: Sequence[Candidates]) -> tuple[Array, Array, Array]:
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


def _weights(prompts: int, resamples: int, seed: int) -> Array:
    """[1 + resamples, P] how often each prompt counts: once, and then as it was drawn with replacement."""
    if not prompts:
        return np.zeros((1, 0))
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return np.concatenate([np.ones((1, prompts)), drawn.astype(np.float64)])


def _errors(prompts: Sequence[Candidates], weights: Array) -> Array:
    """Expected calibration error under each row of weights: sum_b (n_b / n) |accuracy_b - confidence_b|."""
    if not prompts:
        return np.zeros(0)
    count, sure, right = (weights @ part for part in _binned(prompts))
    return np.abs(right - sure).sum(-1) / count.sum(-1)


def _error_estimate(errors: Array, prompts: int) -> dict[str, Any]:
    """From the error, or a difference of errors, on the prompts as they are and on each resample."""
    if not len(errors):
        return {"value": None, "low": None, "high": None, "n": prompts}
    return {"value": float(errors[0]), **_interval(errors[1:]), "n": prompts}


def _bin(count: Array, sure: Array, right: Array, counts: Array, rights: Array) -> dict[str, Any]:
    pairs = int(count.sum())
    if not pairs:
        return {"confidence": None, "value": None, "low": None, "high": None, "pairs": 0}
    value, drawn = float(right.sum() / pairs), counts > 0
    if value in (0.0, 1.0):  # a bootstrap sees no spread
        prompts = int((count > 0).sum())
        low, high = wilson(value * prompts, prompts)
        interval: dict[str, float | None] = {"low": low, "high": high}
    else:
        interval = _interval(rights[drawn] / counts[drawn])
    return {"confidence": float(sure.sum() / pairs), "value": value, **interval, "pairs": pairs}


def _interval(draws: Array) -> dict[str, float | None]:
    if len(draws) == 0:
        return {"low": None, "high": None}
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {"low": float(low), "high": float(high)}
