"""The gate before a provider: how many at once, how many a minute, and what a rate limit does to both."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from plad.remote.limits import Gate
from tests.support.servers.scripted import FakeClock


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_no_more_than_the_limit_are_inside() -> None:
    gate = Gate(2, FakeClock())
    assert [gate.try_enter() for _ in range(3)] == [True, True, False]
    gate.leave()
    assert gate.try_enter()


def test_who_waits_first_enters_first() -> None:
    async def test() -> None:
        gate, order = Gate(1, FakeClock()), []

        async def one(name: str) -> None:
            await gate.enter(0)
            order.append(name)
            gate.leave()

        assert gate.try_enter()
        waiting = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert order == []
        assert not gate.try_enter(), "a newcomer overtakes nobody"
        gate.leave()
        await asyncio.gather(*waiting)
        assert order == ["a", "b", "c"]
        assert gate.in_flight == 0

    run(test())


@pytest.mark.parametrize(
    ("limits", "tokens", "times"),
    [
        ({"rpm": 60}, 10, [0, 1, 2, 3]),
        ({"tpm": 600}, 10, [0, 1, 2, 3]),
        ({"tpm": 600}, 30, [0, 3, 6, 9]),
        ({"rpm": 60, "tpm": 600}, 30, [0, 3, 6, 9]),
        ({"rpm": 6, "tpm": 600}, 30, [0, 10, 20, 30]),
    ],
)
def test_requests_and_tokens_a_minute_are_spaced_evenly(
    limits: dict[str, int], tokens: int, times: list[float]
) -> None:
    async def test() -> None:
        clock = FakeClock()
        gate, entered, start = Gate(8, clock, **limits), [], clock.now()
        for _ in times:
            await gate.enter(tokens)
            entered.append(clock.now() - start)
        assert entered == pytest.approx(times)

    run(test())


def test_a_pause_holds_everybody_back_and_may_be_prolonged() -> None:
    async def test() -> None:
        clock = FakeClock()
        gate = Gate(8, clock)
        gate.slow_down(5, gate.round)
        gate.slow_down(2, gate.round)  # a shorter one doesn't shorten it
        assert not gate.try_enter()
        await gate.enter(0)
        assert clock.now() == 1005
        assert gate.try_enter()

    run(test())


def test_a_rate_limit_halves_once_for_all_that_were_in_flight_and_answers_bring_it_back() -> None:
    gate = Gate(16, FakeClock())
    sent_in = gate.round
    assert [gate.slow_down(0, sent_in) for _ in range(16)] == [True] + [False] * 15
    assert gate.limit == 8
    assert gate.slow_down(0, gate.round)
    assert gate.limit == 4
    for _ in range(4):
        gate.speed_up()
    assert int(gate.limit) in (4, 5)
    assert gate.limit == pytest.approx(4.9, abs=0.1), "about one more for a round of answers"
    for _ in range(1000):
        gate.speed_up()
    assert gate.limit == 16
    for _ in range(10):
        gate.slow_down(0, gate.round)
    assert gate.limit == 1
