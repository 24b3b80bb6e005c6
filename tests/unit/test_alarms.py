"""Signs of collapse, with the figures of runs that are known to have collapsed and of runs that are sound."""

from typing import Any

import pytest

from plad.train.alarms import alarms, idle, together

START = {"chosen_logp": -2.8, "rejected_logp": -1.3, "accuracy": 0.2, "words": 19.0, "ended": 0.86}


def after(**changes: float) -> list[dict[str, Any]]:
    return [START, {**START, "accuracy": 0.4, **changes}]


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"chosen_logp": -3.1, "rejected_logp": -4.0}, "both log-probabilities fall"),
        ({"words": 3.8}, "answers get shorter"),  # rank, mean, beta 1, untamed
        ({"words": 31.0}, "answers get longer"),
        ({"ended": 0.54}, "answers stop ending"),  # rank, sum, beta 1, untamed
    ],
)
def test_each_sign_is_seen_alone_and_says_what_to_try(changes: dict[str, float], sign: str) -> None:
    found = alarms(after(**changes))
    assert list(found) == [sign]
    assert found[sign].startswith(sign)
    assert ": " in found[sign]


@pytest.mark.parametrize(
    "changes",
    [
        {"words": 18.6, "ended": 0.89, "chosen_logp": -2.4, "rejected_logp": -1.9},  # a sound run
        {"rejected_logp": -3.0},  # only the rejected text falls: that is the aim
        {"words": 19.0 / 1.5},
        {"ended": 0.72},
    ],
)
def test_a_sound_run_raises_none(changes: dict[str, float]) -> None:
    assert alarms(after(**changes)) == {}


def test_an_unchanged_order_counts_from_the_third_validation_on() -> None:
    still = {**START, "accuracy": 0.21}
    assert alarms([START, still]) == {}
    assert list(alarms([START, still, still])) == ["the order of the pairs does not change"]
    assert alarms([START, still, {**START, "accuracy": 0.23}]) == {}


def test_an_order_that_gets_worse_is_no_unchanged_one_and_a_full_one_cannot_rise() -> None:
    worse = {**START, "accuracy": 0.1}
    (sign,) = alarms([START, worse, worse])
    assert sign == "the order of the pairs gets worse"
    full = {**START, "accuracy": 0.99}
    assert alarms([full, full, full]) == {}


def test_an_order_that_is_nearly_there_is_no_unchanged_one() -> None:
    nearer = {**START, "rejected_logp": -2.0}
    assert alarms([START, nearer, nearer]) == {}


def test_a_student_that_said_nothing_at_first_does_not_drift() -> None:
    assert alarms([{**START, "words": 0.0}, {**START, "words": 1.7, "accuracy": 0.4}]) == {}


def test_figures_that_were_not_measured_raise_nothing() -> None:
    bare = {"words": 10.0, "ended": 1.0}
    assert alarms([bare, bare, bare]) == {}
    assert alarms([bare]) == {}


@pytest.mark.parametrize(
    ("figures", "sign"),
    [
        ({"ended": 0.0}, "most answers are cut off"),
        ({"repeated": 0.97}, "answers repeat themselves"),  # still still still
        ({"words": 0.0}, "answers have no words"),
    ],
)
def test_a_student_that_began_no_better_is_no_sound_one(figures: dict[str, float], sign: str) -> None:
    start = {**START, **figures}
    for drifts in (True, False):
        assert list(alarms([start, {**start, "accuracy": 0.4}], drifts=drifts)) == [sign]


def test_the_weights_that_are_kept_are_judged_and_not_the_latest() -> None:
    fallen = {**START, "chosen_logp": -3.1, "rejected_logp": -4.0, "accuracy": 0.4}
    back = {**START, "rejected_logp": -2.0, "accuracy": 0.4}
    assert list(alarms([START, fallen, back], fallen)) == ["both log-probabilities fall"]
    assert alarms([START, back, fallen], back) == {}


def test_training_that_did_nothing_is_told_by_its_cause() -> None:
    (sign,) = idle([0.0, 0.0], unchanged=True).values()
    assert sign.startswith("no pair was ever active (0 % had a loss in each of 2 steps; every weight equals its start)")
    assert list(idle([0.0, 0.1], unchanged=True)) == ["the student is what it was"]
    assert idle([], unchanged=False) == idle([0.0, 0.1], unchanged=False) == {}
    still = alarms([START, START, START])
    assert list(together(still, idle([0.0], unchanged=False))) == ["no pair was ever active"]
    assert together(still, {}) == still
