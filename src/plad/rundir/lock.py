"""One process at a time in a directory."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from plad.errors import RunDirError


def acquire(path: Path) -> TextIO:
    """Lock a directory until the file returned is closed or the process ends.

    Raises:
        RunDirError: another process holds it.
    """
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
