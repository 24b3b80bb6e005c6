"""Progress of a long stage: count, rates and time left; a bar on a terminal, a line a minute elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

FIRST_S, EVERY_S = 4.0, 60.0  # seconds before the first line, and between lines, where there is no terminal


@dataclass
class Progress:
    """Counts what is done.

    Attributes:
        total: how many there are.
        unit: what is counted, plural ("answers").
        done: how many are finished, those that were there before included.
        before: how many were there before, and don't count for the rate.
        extra: further sums, each shown as a rate ("tokens").
    """

    label: str
    total: int
    unit: str
    done: int = 0
    before: int = 0
    extra: dict[str, float] = field(default_factory=dict[str, float])
    clock: Callable[[], float] = time.monotonic
    on_change: Callable[["Progress"], None] = lambda _: None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def advance(self, n: int = 1, **extra: float) -> None:
        """Count `n` more, and add to further sums: ``advance(1, tokens=31)``."""
        self.done += n
        for name, value in extra.items():
            self.extra[name] = self.extra.get(name, 0) + value
        self.on_change(self)

    def skip(self, n: int = 1) -> None:
        """Count `n` that were there before."""
        self.before += n
        self.done += n
        self.on_change(self)

    def status(self) -> str:
        """``120/400 answers, 3.1 answers/s, 88 tokens/s, 1 min 30 s left``."""
        seconds = max(self.clock() - self.started, 1e-9)
        fresh = self.done - self.before
        parts = [f"{self.done:,}/{self.total:,} {self.unit}"]
        if self.before:
            parts[0] += f" ({self.before:,} from before)"
        if fresh:
            rates = {self.unit: fresh, **self.extra}
            parts += [f"{_number(value / seconds)} {name}/s" for name, value in rates.items()]
            if self.done < self.total:
                parts.append(f"{duration((self.total - self.done) * seconds / fresh)} left")
            else:
                parts.append(f"{duration(seconds)} in all")
        return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """``8 s``, ``1 min 30 s`` or ``2 h 5 min``."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


@contextlib.contextmanager
def track(
    label: str,
    total: int,
    unit: str,
    *,
    quiet: bool = False,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Progress]:
    """Show the progress of the block.

    Args:
        label: what is being done.
        total: how many there are.
        unit: what is counted, plural.
        quiet: show nothing.
        stream: where to. Default: standard error.
    """
    out = stream or sys.stderr
    progress = Progress(label, total, unit, clock=clock)
    if quiet:
        yield progress
    elif out.isatty():
        with _bar(progress, out):
            yield progress
    else:
        with _lines(progress, out):
            yield progress


@contextlib.contextmanager
def _bar(progress: Progress, out: TextIO) -> Generator[None]:

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[status]}"))
    with Bar(*columns, console=Console(file=out), refresh_per_second=4) as bar:
        task = bar.add_task(progress.label, total=progress.total, status=progress.status())
        progress.on_change = lambda p: bar.update(task, completed=p.done, status=p.status())
        yield


@contextlib.contextmanager
def _lines(progress: Progress, out: TextIO) -> Generator[None]:
    """A line soon after the start, whether or not anything is done by then; one a minute; one at the end."""
    shown = progress.started

    def write() -> None:
        print(f"{progress.label}: {progress.status()}", file=out, flush=True)

    def show(p: Progress) -> None:
        nonlocal shown
        if p.clock() - shown >= EVERY_S:
            shown = p.clock()
            write()

    progress.on_change = show
    first = threading.Timer(FIRST_S, write)
    first.daemon = True
    first.start()
    try:
        yield
    finally:
        first.cancel()
        write()
