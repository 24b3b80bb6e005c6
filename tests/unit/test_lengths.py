"""Length-controlled win rates and win rates by length, by hand where a hand can do it."""

import json
import math

import numpy as np
import pytest

from plad.evaluate.lengths import by_length, length_controlled, length_controlled_difference, length_edges
from plad.evaluate.stats import Bootstrap

DRAWS = Bootstrap(300)


def two_lengths(longer: float, shorter: float, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """n prompts whose answer is 7 words longer, with a win rate of `longer`; n that are 7 words shorter."""
    points = [np.r_[np.ones(round(share * n)), np.zeros(n - round(share * n))] for share in (longer, shorter)]
    return np.concatenate(points), np.r_[np.full(n, 7.0), np.full(n, -7.0)]


def test_length_control_by_hand() -> None:
    """Two lengths, two coefficients: the fit meets both shares exactly, and the intercept is the mean of their logits.

    logit 0.8 = log 4, logit 0.5 = 0: sigmoid(log 4 / 2) = 2/3, where the plain win rate is 0.65. sd(d) is 7, so the
    slope is log 4 / 2 / tanh(1).
    """
    found = length_controlled(*two_lengths(0.8, 0.5), DRAWS)
    assert found.value == pytest.approx(2 / 3, abs=1e-4)
    assert found.slope == pytest.approx(math.log(4) / 2 / math.tanh(1), abs=1e-2)
    assert found.low < 2 / 3 < found.high
    assert found.n == 2000


def test_a_win_rate_made_of_length_alone_vanishes() -> None:
    """All answers but a few are longer, and longer answers win: 0.8 where longer, 0.2 where shorter, so 0.5 alike."""
    points, extra = two_lengths(0.8, 0.2)
    keep = np.r_[np.arange(1000), np.arange(1000, 2000, 5)]  # every fifth of the shorter ones
    found = length_controlled(points[keep], extra[keep], DRAWS)
    assert points[keep].mean() > 0.65
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert found.low < 0.5 < found.high


def test_ties_count_half() -> None:
    points, extra = two_lengths(0.5, 0.5, 100)
    ties = length_controlled(np.full(200, 0.5) + np.r_[0.5, -0.5, np.zeros(198)], extra, DRAWS)
    assert ties.value == pytest.approx(0.5, abs=1e-2)
    assert ties.high - ties.low < 0.05
    halves = length_controlled(points, extra, DRAWS)
    assert halves.high - halves.low > 0.1


@pytest.mark.parametrize(
    ("points", "extra", "value"),
    [
        ([1.0] * 9, list(range(9)), 1.0),  # always won
        ([1.0, 0.0, 0.5], [4.0] * 3, 0.5),  # always 4 words longer
        ([1.0], [3.0], 1.0),
        ([], [], None),
    ],
)
def test_nothing_to_control_is_the_plain_win_rate(points: list[float], extra: list[float], value: float | None) -> None:
    found = length_controlled(np.array(points), np.array(extra), DRAWS)
    assert (found.value, found.n) == (value, len(points))
    assert found.slope == (None if value is None else 0.0)
    json.dumps(found.to_json(), allow_nan=False)


def test_length_that_decides_every_prompt_stays_finite() -> None:
    extra = np.r_[np.full(20, 5.0), np.full(20, -5.0)]
    found = length_controlled(np.r_[np.ones(20), np.zeros(20)], extra, DRAWS)
    assert found.value == pytest.approx(0.5, abs=1e-6)
    assert 0 <= found.low <= 0.5 <= found.high <= 1


def test_a_gain_by_length_alone_is_no_gain_at_equal_length() -> None:
    """Both systems win 0.8 where longer and 0.2 where shorter; ours is longer far more often."""
    points, extra = two_lengths(0.8, 0.2, 500)
    flipped = 1 - points[::-1]  # the same laws, on the prompts in another order
    order = np.random.default_rng(0).permutation(1000)
    long = np.r_[np.arange(500), np.arange(500, 1000, 10)]
    short = np.r_[np.arange(0, 500, 10), np.arange(500, 1000)]
    ours = (points[long], extra[long])
    theirs = (points[short], extra[short])
    assert ours[0].mean() - theirs[0].mean() > 0.4
    found = length_controlled_difference(ours, theirs, DRAWS)
    assert found.low < 0 < found.high
    assert found.value == pytest.approx(0, abs=0.03)
    same = length_controlled_difference((points, extra), (points, extra), DRAWS)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = length_controlled_difference((points[order], extra[order]), (flipped * 0, -extra), DRAWS)
    assert better.low > 0.3
    assert length_controlled_difference((points[:0], extra[:0]), (points[:0], extra[:0]), DRAWS).value is None


def test_edges_are_round_and_cover_the_middle() -> None:
    words = np.arange(8, 41)  # 5 % and 95 %: 9.6 and 38.4, five bins of at most 10
    assert length_edges(words) == [10, 20, 30]
    assert length_edges([5, 5, 5]) == []
    assert length_edges([]) == []
    assert length_edges([0, 2000]) == [500, 1000, 1500]


def test_bins_by_hand() -> None:
    """Edges 10 and 20: 10 words stand in the first bin, 20 in the second; nothing is longer."""
    points = {"a": 1.0, "b": 0.0, "c": 1.0}
    words = {"a": 10.0, "b": 20.0, "c": 11.0, "d": 99.0}  # d was not judged
    rows = by_length(points, words, [10, 20], DRAWS)
    assert [(r.words_above, r.words_to, r.value, r.n) for r in rows] == [
        (None, 10, 1.0, 1),
        (10, 20, 0.5, 2),
        (20, None, None, 0),
    ]
    rows = by_length(points, words, [10], DRAWS, against={"a": 0.0, "b": 0.0})
    assert [(r.value, r.n) for r in rows] == [(1.0, 1), (0.0, 1)]
    assert rows[0].p == 1.0
    assert [r.n for r in by_length(points, words, [], DRAWS)] == [3]
