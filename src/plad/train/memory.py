"""The most memory that a piece of work held, whatever is done in between."""

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import torch


class PeakMemory:
    """The peak over all stretches from `begin` to `end`: of GPUs what is allocated, of the CPU what the process holds.

    Where the system can't forget an earlier peak (no /proc), the process's peak since its start is given.

    Args:
        devices: on which the work is done; the peaks of several are added.

    Attributes:
        largest: bytes; 0 before the first stretch has ended.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self.devices = set(devices)
        self.largest = 0
        self._last = -1

    def begin(self) -> None:
        """Forget the peak of what was done since the last stretch."""
        if self._read() != self._last:
            self._forget()

    def end(self) -> None:
        """Count the stretch."""
        self._last = self._read()
        self.largest = max(self.largest, self._last)

    def _forget(self) -> None:
        gc.collect()
        for device in self.devices:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
        if sys.platform == "linux":
            with contextlib.suppress(AttributeError, OSError):  # another C library, a locked-down container
                ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed counts no longer
                Path("/proc/self/clear_refs").write_text("5")

    def _read(self) -> int:
        gpus = [device for device in self.devices if device.type == "cuda"]
        found = sum(torch.cuda.max_memory_allocated(device) for device in gpus)
        return found + (_process() if len(gpus) < len(self.devices) else 0)


def _process() -> int:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
