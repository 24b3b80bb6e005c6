"""Files of a ledger: read where nothing may be written, though SQLite wants to make two beside it; still in place."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from plad.rundir.writing import may_write


class OpenFile:
    """A file that is open; SQLite goes on without a word where its name is gone."""

    def __init__(self, path: Path) -> None:
        self.path, self._was = path, path.stat()

    def is_there(self) -> bool:
        """Whether its name still stands for it."""
        try:
            return os.path.samestat(self.path.stat(), self._was)
        except OSError:
            return False


def nothing() -> None:
    """No clearing up."""


def for_reading(path: Path) -> tuple[str, Callable[[], None]]:
    """The address under which a ledger can be read, and what to call once it is closed.

    A ledger is taken for immutable only where nobody has it open: whoever does has left a -wal with content or a -shm.
    Rows that stand in a -wal alone are read there, or, without its index, in a copy.
    """
    plain = f"{path.absolute().as_uri()}?mode=ro"
    wal, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    if may_write(path) or (wal.is_file() and index.is_file()):
        return plain, nothing
    if not wal.is_file() or not wal.stat().st_size:
        return f"{plain}&immutable=1", nothing
    copy = tempfile.TemporaryDirectory(prefix="plad-ledger-")
    for file in (path, wal):
        shutil.copyfile(file, Path(copy.name) / file.name)
    return f"{(Path(copy.name) / path.name).as_uri()}?mode=ro", copy.cleanup
