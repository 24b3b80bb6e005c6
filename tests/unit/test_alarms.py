"""Signs of collapse, with the figures of runs that are known to have collapsed and of runs that are sound."""

from typing import Any

import pytest

from plad.train.alarms import alarms

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
    assert alarms([{**START, "words": 0.0}, {**START, "words": 0.7, "accuracy": 0.4}]) == {}


def test_figures_that_were_not_measured_raise_nothing() -> None:
    bare = {"words": 10.0, "ended": 1.0}
    assert alarms([bare, bare, bare]) == {}
    assert alarms([bare]) == {}
