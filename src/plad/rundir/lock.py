"""One process at a time in a directory."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from plad.errors import ConfigError, RunDirError


def acquire(path: Path) -> TextIO:
    """Lock a directory until the file returned is closed or the process ends.

    Raises:
        ConfigError: this is one of several processes that a launcher has started.
        RunDirError: another process holds it.
    """
    if (processes := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
        raise ConfigError(
            f"a launcher (torchrun, accelerate, srun) has started {processes} processes, and plad trains in one",
            where=f"WORLD_SIZE={processes}",
            fix="start it once: plad run CONFIG\nor unset WORLD_SIZE where a job's environment sets it",
        )
    lock = (path / "run.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        raise RunDirError(f"in use by {owner}", where=str(path), fix="wait for it, or name another run.dir") from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock
