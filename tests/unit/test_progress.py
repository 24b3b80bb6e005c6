"""Progress: counts, rates and time left, and where they are shown."""

import io
import time

import pytest

import plad.progress
from plad.progress import duration, track


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_status_holds_count_rates_and_time_left() -> None:
    """30 answers and 900 tokens in 10 s: 3 and 90 a second; the 60 that are left take 20 s."""
    clock = Clock()
    with track("teacher", 100, "answers", quiet=True, clock=clock) as progress:
        progress.skip(10)
        clock.now += 10
        for _ in range(30):
            progress.advance(1, tokens=30)
        assert progress.status() == "40/100 answers (10 from before), 3 answers/s, 90 tokens/s, 20 s left"


def test_without_a_terminal_a_line_comes_once_a_minute_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    with track("teacher", 300, "answers", stream=out, clock=clock) as progress:
        for _ in range(300):
            clock.now += 1
            progress.advance()
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        *(f"teacher: {n}/300 answers" for n in (60, 120, 180, 240, 300)),
        "teacher: 300/300 answers",
    ]
    assert lines[-1].endswith("5 min 0 s in all")


def test_without_a_terminal_the_first_line_comes_soon_though_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plad.progress.FIRST_S", 0.05)
    out = io.StringIO()
    with track("teacher", 3, "answers", stream=out):
        for _ in range(100):
            if out.getvalue():
                break
            time.sleep(0.05)
        assert out.getvalue() == "teacher: 0/3 answers\n"
    assert plad.progress.EVERY_S == 60


def test_the_last_line_comes_after_an_error_too() -> None:
    out = io.StringIO()

    def interrupted() -> None:
        with track("teacher", 3, "answers", stream=out) as progress:
            progress.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "1/3 answers" in out.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    out = Terminal()
    with track("teacher", 2, "answers", stream=out) as progress:
        progress.advance(2, tokens=60)
    assert "teacher" in out.getvalue()
    assert "2/2 answers" in out.getvalue()
    assert "tokens/s" in out.getvalue()


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_quiet_shows_nothing(out: io.StringIO) -> None:
    with track("teacher", 2, "answers", quiet=True, stream=out) as progress:
        progress.advance(2)
    assert out.getvalue() == ""
    assert progress.done == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1 min 30 s"), (7500, "2 h 5 min"), (3599.7, "1 h 0 min")]
)
def test_durations_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
