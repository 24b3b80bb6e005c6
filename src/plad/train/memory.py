"""The most memory a piece of work held."""

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch


class PeakMemory:
    """Measures from its making on: a GPU's allocated memory, or the process's resident memory.

    Where the system can't forget an earlier peak (no /proc), the process's peak since its start is given.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            with contextlib.suppress(AttributeError, OSError):  # another C library, a locked-down container
                ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed counts no longer
                Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if sys.platform == "linux":
            with contextlib.suppress(OSError, StopIteration):
                lines = Path("/proc/self/status").read_text().splitlines()
                return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
