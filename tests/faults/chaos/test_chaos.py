"""A tiny whole run is disturbed in every way, by the same draws every time; what was found once stays mended."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.chaos.machine import replay, search
from tests.faults.chaos.world import Lab, Step

EXAMPLES: dict[str, list[Step]] = json.loads((Path(__file__).parent / "examples.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_was_found_stays_mended(name: str, lab: Lab) -> None:
    outcome = replay(lab, EXAMPLES[name])
    assert not outcome.failures, outcome.failures[0].told()


def test_whatever_happens_a_run_says_what_to_do_and_ends_as_if_nothing_had(lab: Lab) -> None:
    outcome = search(lab, 15)
    assert not outcome.failures, "\n".join(failure.told() for failure in outcome.failures)
    assert outcome.sequences >= 15
    assert outcome.tally.kills
