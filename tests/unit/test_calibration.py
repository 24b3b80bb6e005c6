"""Calibration of likelihoods, by hand where a hand can do it."""

import json
import math

import numpy as np
import pytest

from plad.evaluate.likelihood_calibration import (
    RankedTexts,
    calibration_change,
    calibration_difference,
    kendall,
    likelihood_calibration,
    pairwise_accuracy,
    reliability,
    spearman,
)
from plad.evaluate.stats import Bootstrap

DRAWS = Bootstrap(300)


def prompt(likelihood: list[float], quality: list[float]) -> RankedTexts:
    return RankedTexts(np.array(likelihood), np.array(quality))


def test_correlations_by_hand() -> None:
    """Ranks 1 2 3 against 1 3 2: two of three pairs agree, tau = 1/3; 1 - 6 (0 + 1 + 1) / (3 x 8) = 1/2."""
    p = prompt([-3, -2, -1], [0, 5, 2])
    assert kendall(p) == pytest.approx(1 / 3)
    assert spearman(p) == pytest.approx(1 / 2)
    assert pairwise_accuracy(p) == pytest.approx(2 / 3)


def test_reversed_and_flat_likelihoods() -> None:
    assert [f(prompt([-1, -2, -3], [1, 2, 3])) for f in (kendall, spearman)] == [pytest.approx(-1)] * 2
    assert pairwise_accuracy(prompt([-1, -2, -3], [1, 2, 3])) == 0.0
    flat = prompt([-1, -1], [0, 1])
    assert (kendall(flat), spearman(flat), pairwise_accuracy(flat)) == (0.0, 0.0, 0.5)


def test_pairs_of_equal_quality_say_nothing() -> None:
    """Qualities 0 0 1: the pairs (0, 2) and (1, 2) count, in the one of which the order is right."""
    assert pairwise_accuracy(prompt([-5, -1, -3], [0, 0, 1])) == 0.5


def test_calibration_over_prompts() -> None:
    found = likelihood_calibration(
        [prompt([-2, -1], [0, 1]), prompt([-1, -2], [0, 1]), prompt([-1, -2], [3, 3]), prompt([-1], [1])], DRAWS
    )
    assert (found.kendall.value, found.kendall.n) == (0.0, 2)
    assert found.pairwise_accuracy.value == 0.5
    assert (found.pairs, found.no_order) == (2, 2)


def test_reliability_by_hand() -> None:
    """sigmoid(1) = 0.731 right, sigmoid(1.2) = 0.769 wrong, sigmoid(0) = 0.5 half: error (0.5 + 0 over 3 pairs)."""
    prompts = [prompt([-1, -2], [1, 0]), prompt([-1, -2.2], [0, 1]), prompt([-1, -1], [0, 1])]
    curve, error = reliability(prompts, DRAWS)
    assert [row.pairs for row in curve] == [1, 0, 2, 0, 0]
    sure = [1 / (1 + math.exp(-g)) for g in (1, 1.2)]
    assert curve[2].confidence == pytest.approx(sum(sure) / 2)
    assert curve[2].value == 0.5
    assert (curve[0].confidence, curve[0].value) == (0.5, 0.5)
    assert error.value == pytest.approx(abs(1 - sum(sure)) / 3)
    assert error.low <= error.value <= error.high


def test_a_gap_without_end_stands_in_the_last_bin() -> None:
    curve, _ = reliability([prompt([0, -500], [1, 0])], DRAWS)
    assert (curve[-1].pairs, curve[-1].value, curve[-1].confidence) == (1, 1.0, 1.0)


def test_likelihoods_that_say_how_sure_they_are_have_no_error() -> None:
    """Quality is drawn so that the likelier text is the better one with probability sigmoid(gap)."""
    rng = np.random.default_rng(1)
    prompts = []
    for gap in rng.uniform(0, 4, size=3000):
        right = rng.random() < 1 / (1 + math.exp(-gap))
        prompts.append(prompt([0, -gap], [1, 0] if right else [0, 1]))
    curve, error = reliability(prompts, DRAWS)
    assert error.value < 0.03
    for row in curve:
        assert row.low - 0.02 <= row.confidence <= row.high + 0.02
    overconfident = [RankedTexts(p.likelihood * 10, p.quality) for p in prompts]
    assert reliability(overconfident, DRAWS)[1].value > 0.1


def test_what_distillation_changed_is_paired() -> None:
    rng = np.random.default_rng(3)
    quality = rng.normal(size=(60, 4))
    before = [RankedTexts(rng.normal(size=4), q) for q in quality]
    after = [RankedTexts(p.likelihood + 2 * p.quality, p.quality) for p in before]
    found = calibration_difference(after, before, DRAWS)
    for change in (found.kendall, found.spearman, found.pairwise_accuracy):
        assert change.low > 0
        assert change.p < 0.01
        assert change.n == 60
    same = calibration_difference(before, before, DRAWS)
    assert (same.kendall.value, same.kendall.p) == (0.0, 1.0)


@pytest.mark.parametrize("prompts", [[], [prompt([-1], [1])], [prompt([], [])], [prompt([-1, -2], [4, 4])]])
def test_nothing_to_order_gives_no_nan(prompts: list[RankedTexts]) -> None:
    found = likelihood_calibration(prompts, DRAWS)
    for part in (found, calibration_difference(prompts, prompts, DRAWS)):
        json.dumps(part.to_json(), allow_nan=False)
        assert part.ece.value is None
    assert found.pairs == 0


def test_the_models_own_texts_stand_apart_from_the_teachers() -> None:
    """The third text is the teacher's, and best: likely after distillation. Its own two are in the wrong order."""
    own = np.array([True, True, False])
    before = RankedTexts(np.array([-1.0, -2.0, -3.0]), np.array([0.0, 1.0, 2.0]), own)
    after = RankedTexts(np.array([-1.0, -2.0, -0.5]), before.quality, own)
    everything = calibration_change([before], [after], DRAWS)
    alone = calibration_change([before.of_its_own()], [after.of_its_own()], DRAWS)
    assert [m.pairwise_accuracy.value for m in (everything.before, everything.after)] == [0.0, pytest.approx(2 / 3)]
    assert [m.pairwise_accuracy.value for m in (alone.before, alone.after)] == [0.0, 0.0]
    assert alone.difference.pairwise_accuracy.value == 0.0
    assert before.of_its_own().of_its_own().quality.tolist() == [0.0, 1.0]


def test_the_change_of_the_error_by_hand() -> None:
    """Sure and wrong before (error 1), sure and right after (error 0): -1, whichever prompts are drawn."""
    before, after = [prompt([0, -50], [0, 1])] * 5, [prompt([-50, 0], [0, 1])] * 5
    found = calibration_difference(after, before, DRAWS).ece
    assert [found.value, found.low, found.high] == [pytest.approx(-1)] * 3
    assert (found.n, found.p) == (5, None)
