"""Statistical rejection sampling (Liu et al. 2023, Algorithm 1) with numbers a reader can redo."""

import random
from math import log

import pytest

from plad.pairs.selection import accept


def draws(*numbers: float):
    return iter(numbers).__next__


# exp((r - r_max) / 1) is 1, 1/2 and 1/4.
REWARDS = [0.0, -log(2), -log(4)]


def test_each_sample_is_accepted_with_the_probability_of_its_distance_from_the_best() -> None:
    """0.99 < 1: accepted. 0.51 > 1/2: not. 0.24 < 1/4: accepted. Second round: only the middle one, now the best."""
    assert accept(REWARDS, beta=1.0, keep=3, uniform=draws(0.99, 0.51, 0.24, 0.99)) == [0, 2, 1]


def test_sampling_stops_in_the_middle_of_a_round() -> None:
    assert accept(REWARDS, beta=1.0, keep=1, uniform=draws(0.99)) == [0]
    assert accept(REWARDS, beta=1.0, keep=2, uniform=draws(0.99, 0.51, 0.24)) == [0, 2]


def test_the_highest_reward_is_that_of_the_samples_left() -> None:
    """Second round: the best is -log 2, so the last one's probability is exp(-log 4 + log 2) = 1/2."""
    assert accept(REWARDS, beta=1.0, keep=3, uniform=draws(0.0, 0.9, 0.9, 0.9, 0.49)) == [0, 1, 2]
    assert accept(REWARDS, beta=1.0, keep=2, uniform=draws(0.0, 0.9, 0.9, 0.9)) == [0, 1]


def test_the_highest_reward_is_fixed_for_a_round() -> None:
    """The best, accepted first, still sets the probabilities of its round: 0.3 is above 1/4 (it would be below 1/2)."""
    assert accept([0.0, -log(4)], beta=1.0, keep=2, uniform=draws(0.0, 0.3, 0.0)) == [0, 1]
    assert accept([0.0, -log(4)], beta=1.0, keep=2, uniform=draws(0.0, 0.2)) == [0, 1]


def test_beta_is_the_temperature_of_the_reward() -> None:
    """At beta 1/2 the probabilities are 1, 1/4 and 1/16."""
    assert accept(REWARDS, beta=0.5, keep=2, uniform=draws(0.9, 0.26, 0.06)) == [0, 2]
    assert accept(REWARDS, beta=0.5, keep=2, uniform=draws(0.9, 0.24)) == [0, 1]


def test_towards_zero_beta_takes_the_best_in_order_and_at_infinity_the_first() -> None:
    rewards = [1.0, 3.0, 2.0]
    assert accept(rewards, beta=1e-6, keep=3, uniform=random.Random(0).random) == [1, 2, 0]
    assert accept(rewards, beta=1e9, keep=2, uniform=random.Random(0).random) == [0, 1]


@pytest.mark.parametrize(("rewards", "keep", "n"), [([], 3, 0), ([1.0], 3, 1), ([1.0, 1.0, 1.0], 2, 2)])
def test_never_more_than_there_are(rewards: list[float], keep: int, n: int) -> None:
    assert len(accept(rewards, beta=1.0, keep=keep, uniform=random.Random(0).random)) == n


def test_accepted_samples_follow_the_policy_that_is_best_for_the_reward() -> None:
    """Two of three kinds of sample with rewards 0 and -log 3: the first round takes them 1 : 1/3, that is 3 : 1."""
    stream = random.Random(0)
    kinds = [stream.random() < 0.5 for _ in range(4000)]
    rewards = [0.0 if kind else -log(3) for kind in kinds]
    taken = accept(rewards, beta=1.0, keep=1500, uniform=stream.random)
    assert sum(kinds[i] for i in taken) / len(taken) == pytest.approx(0.75, abs=0.03)
