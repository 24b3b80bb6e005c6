"""Intervals and p-values, by hand where a hand can do it."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from plad.evaluate.stats import (
    Bootstrap,
    estimate,
    paired_difference,
    power,
    sign_flip_p,
    sign_test_p,
    wilson,
)


def test_wilson_by_hand() -> None:
    """z = 1.96, z^2 = 3.8415. 10 of 10: low = n / (n + z^2) = 10 / 13.8415. 5 of 10: .5 -+ 1.96/1.38415 sqrt(.0346)."""
    assert wilson(10, 10) == pytest.approx((10 / 13.8415, 1.0), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 7), (50, 200), (200, 200)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_all_wins_and_no_wins_get_wilson_bounds() -> None:
    wins = estimate(np.ones(10), Bootstrap(100))
    losses = estimate(np.zeros(10), Bootstrap(100))
    assert (wins.value, wins.low, wins.high) == pytest.approx((1.0, *wilson(10, 10)))
    assert (losses.value, losses.low, losses.high) == pytest.approx((0.0, *wilson(0, 10)))


def test_all_ties_leave_room_on_both_sides() -> None:
    """At least w = 60 / 63.84 of the prompts tie; the rest may all lose or all win: .5 w and .5 w + 1 - w."""
    w = wilson(60, 60)[0]
    ties = estimate(np.full(60, 0.5), Bootstrap(100))
    assert (ties.value, ties.low, ties.high) == pytest.approx((0.5, 0.5 * w, 0.5 * w + 1 - w))


@pytest.mark.parametrize("values", [[], [1.0], [0.5], [0.0, 0.0], [0.0, 1.0]])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_no_nan_ever(values: list[float], bounds: tuple[float, float] | None) -> None:
    e = estimate(np.array(values), Bootstrap(50), bounds=bounds)
    json.dumps(e.to_json(), allow_nan=False)
    assert e.n == len(values)
    assert (e.value is None) == (not values)


def test_no_interval_without_spread_on_a_scale_without_ends() -> None:
    e = estimate(np.array([5.0, 5.0]), Bootstrap(50), bounds=None)
    assert (e.value, e.low, e.high) == (5.0, None, None)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        estimate(np.array([1.0, np.nan]), Bootstrap(50))


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).beta(2, 5, size=80)
    ours = estimate(values, Bootstrap(20_000, 1))
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_the_same_seed_resamples_the_same_prompts() -> None:
    """Pairing: the resampled mean of a difference is the difference of the resampled means."""
    rng = np.random.default_rng(0)
    a, b = rng.random(50), rng.random(50)
    means = Bootstrap(200, 7).means(a) - Bootstrap(200, 7).means(b)
    np.testing.assert_allclose(Bootstrap(200, 7).means(a - b), means, atol=1e-12)


def test_resampling_in_pieces_gives_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plad.evaluate.stats._CELLS", 70)
    assert len(Bootstrap(25).means(np.arange(10.0))) == 25


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Win 45 %, tie 10 %, loss 45 % on 60 prompts: the true rate is 0.5."""
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(400):
        e = estimate(rng.choice([1.0, 0.5, 0.0], size=60, p=[0.45, 0.1, 0.45]), Bootstrap(500, trial))
        assert e.low is not None
        assert e.high is not None
        covered += e.low <= 0.5 <= e.high
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 1, 1], 2 / 8),  # only +++ and --- are as far out
        ([1, 0.5, -0.5], 6 / 8),  # |+-1 +-.5 +-.5| is 2, 1, 1, 0 twice; seen 1
        ([1, 0, 0, 0], 1.0),  # one moved prompt says nothing
        ([0, 0], 1.0),
        ([0.1, 0.2, 0.3], 2 / 8),  # sums that differ in the last bit still count
    ],
)
def test_sign_flip_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(np.array(differences, dtype=float), Bootstrap(100)) == p


def test_sign_flip_of_wins_and_losses_is_the_sign_test() -> None:
    """10 better, 3 worse: 2 (1 + 13 + 78 + 286) / 2^13 = 756 / 8192."""
    p = sign_flip_p(np.array([1.0] * 10 + [-1.0] * 3), Bootstrap(40_000))
    assert p == pytest.approx(756 / 8192, abs=5e-3)


def test_random_sign_flips_never_claim_p_zero() -> None:
    assert sign_flip_p(np.ones(40), Bootstrap(999)) == 1 / 1000


def test_no_differences_no_p() -> None:
    assert sign_flip_p(np.array([]), Bootstrap(10)) is None


def test_identical_systems_differ_by_nothing() -> None:
    scores = np.random.default_rng(0).random(50)
    d = paired_difference(scores, scores.copy(), Bootstrap(500))
    assert (d.value, d.p, d.n) == (0.0, 1.0, 50)
    assert d.low is not None
    assert d.high is not None
    assert d.low < 0 < d.high


def test_p_values_of_equal_systems_are_uniform_enough() -> None:
    rng = np.random.default_rng(5)
    p = [sign_flip_p(rng.normal(size=25), Bootstrap(400, i)) or 0 for i in range(300)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09


def test_a_difference_has_the_sign_of_ours_minus_theirs() -> None:
    d = paired_difference(np.array([1.0, 1.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5, 0.0]), Bootstrap(500))
    assert d.value == pytest.approx(2.5 / 4)
    assert d.p == 2 / 8


def test_sign_test_by_hand() -> None:
    """10 up, 3 down: 2 (1 + 13 + 78 + 286) / 2^13. Zeros say nothing, sizes neither."""
    p = 756 / 8192
    assert sign_test_p(np.array([1.0] * 10 + [-1.0] * 3)) == pytest.approx(p)
    assert sign_test_p(np.array([0.1] * 10 + [-9.0] * 3 + [0.0] * 50)) == pytest.approx(p)
    assert sign_test_p(np.array([1.0] * 5)) == pytest.approx(2 / 32)
    assert sign_test_p(np.zeros(4)) == 1.0
    assert sign_test_p(np.array([])) is None


def test_power_by_hand() -> None:
    """55 wins, 45 losses: effect 0.05, variance (0.25 - 0.0025) 100 / 99 = 0.25; (1.96 + 0.8416)^2 0.25 / 0.0025."""
    found = power(np.r_[np.ones(55), -np.ones(45)] / 2)
    assert (found.effect, found.sd) == (pytest.approx(0.05), pytest.approx(0.5))
    assert found.prompts_needed == 785
    assert found.detectable == pytest.approx(2.80159 * 0.5 / 10, abs=1e-5)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.5], [1.0, -1.0]])
def test_power_says_none_where_it_can_say_nothing(values: list[float]) -> None:
    found = power(np.array(values))
    json.dumps(found.to_json(), allow_nan=False)
    assert found.prompts_needed is None


def test_the_needed_prompts_see_the_effect_four_times_in_five() -> None:
    """A planted effect of 0.2 with sd 1 needs 197 prompts; a t-test on so many finds it in about 80 % of trials."""
    z = np.array([-1.0, 1.0] * 500)
    needed = power(z / z.std(ddof=1) + 0.2).prompts_needed
    assert needed == 197
    rng = np.random.default_rng(5)
    draws = rng.normal(0.2, 1.0, size=(1000, needed))
    found = np.abs(draws.mean(1)) / draws.std(1, ddof=1) * needed**0.5 > 1.972
    assert found.mean() == pytest.approx(0.8, abs=0.04)
