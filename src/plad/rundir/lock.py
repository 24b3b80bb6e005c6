"""One process at a time in a directory."""

import contextlib
import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from plad.errors import ConfigError, RunDirError
from plad.text import clean


@dataclass
class Lock:
    """A locked directory: the lock dies with its process.

    The folder itself is locked too, so that one whose run.lock somebody deleted is still in use.

    Attributes:
        file: run.lock.
        folder: None where the file system locks no folders.
    """

    path: Path
    file: TextIO
    folder: int | None

    def check(self) -> None:
        """Whether the directory is still there.

        Raises:
            RunDirError: it was deleted, or moved away.
        """
        if self.folder is None:
            there = self.path.is_dir()
        else:
            there = self.path.is_dir() and os.path.samestat(os.stat(self.path), os.fstat(self.folder))
        if not there:
            raise RunDirError(
                "the run directory was deleted or moved away while the run went on",
                where=str(self.path),
                fix="move it back, or remove what stands there now; then run the same command again",
            )

    def close(self) -> None:
        """Unlock it."""
        self.file.close()
        if self.folder is not None:
            os.close(self.folder)
            self.folder = None


def acquire(path: Path) -> Lock:
    """Lock a directory until it is closed or the process ends.

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
    lock = Lock(path, (path / "run.lock").open("a+", encoding="utf-8", errors="replace"), None)
    try:
        fcntl.flock(lock.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.folder = _locked_folder(path)
    except BlockingIOError:
        lock.file.seek(0)
        owner = clean(lock.file.read(200)).strip() or "another process"
        lock.close()
        raise RunDirError(f"in use by {owner}", where=str(path), fix="wait for it, or name another run.dir") from None
    lock.file.seek(0)
    lock.file.truncate()
    lock.file.write(f"pid {os.getpid()} on {socket.gethostname()}")
    lock.file.flush()
    return lock


def _locked_folder(path: Path) -> int | None:
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise
    except OSError:  # a network file system that locks files alone
        with contextlib.suppress(OSError):
            os.close(folder)
        return None
    return folder
