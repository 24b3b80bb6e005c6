"""One child process for each variant, and what a child measures: CPU seconds and peak memory of one repetition.

Children are spawned, load their model, and then wait: the parent lets one of them work at a time, in turn, so that
whatever disturbs the machine disturbs all variants alike.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

QUIET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
"""Environment of the children: one thread, no network, no telemetry, no chatter."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition of one variant.

    Attributes:
        seconds: CPU seconds of the process.
        peak: bytes above the loaded model; None where the system doesn't say.
        values: what else the variant reports.
    """

    seconds: float
    peak: int | None
    values: dict[str, Any] = field(default_factory=dict)


def process_memory(name: str) -> int | None:
    """Bytes of one entry (VmRSS, VmHWM) of this process's status; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), None)


def _give_back() -> None:
    """Return freed memory to the system: several children wait side by side."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).malloc_trim(0)


class Meter:
    """The child's end: waits for its turn, measures, reports."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.loaded = 0
        self.started = 0.0

    def model_is_loaded(self) -> None:
        """Take the memory that peaks are measured from."""
        _give_back()
        self.loaded = process_memory("VmRSS") or 0

    def wait(self) -> None:
        """Say that the next repetition can start, and block until it may."""
        _give_back()
        self.connection.send("ready")
        self.connection.recv()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        self.started = time.process_time()

    def report(self, **values: Any) -> None:
        """Send the repetition that `wait` started."""
        seconds = time.process_time() - self.started
        peak = process_memory("VmHWM")
        self.connection.send(Sample(seconds, None if peak is None else max(0, peak - self.loaded), values))


def _child(connection: Connection, work: Callable[[Meter, Any], None], task: Any) -> None:
    try:
        import torch

        torch.set_num_threads(1)
        work(Meter(connection), task)
    except BaseException:
        connection.send(traceback.format_exc())
        raise


class Child:
    """A variant in a process of its own.

    Args:
        work: runs in the child, with its meter and `task`; both can be pickled.
    """

    def __init__(self, work: Callable[[Meter, Any], None], task: Any) -> None:
        os.environ.update(QUIET)
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_child, args=(theirs, work, task), daemon=True)
        self.process.start()
        theirs.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.process.terminate()
        self.process.join()
        self.connection.close()

    def wait(self) -> None:
        """Block until the child has loaded its model, or finished its last repetition, and is idle."""
        self._receive("ready")

    def measure(self) -> Sample:
        """One repetition; `wait` comes before each."""
        self.connection.send("go")
        return self._receive(None)

    def _receive(self, expected: str | None) -> Any:
        try:
            message = self.connection.recv()
        except EOFError:
            raise RuntimeError(f"a benchmark process ended with exit code {self.process.exitcode}") from None
        if isinstance(message, str) and message != expected:
            raise RuntimeError(f"a benchmark process failed:\n{message}")
        return message
