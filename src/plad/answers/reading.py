"""Reading a ledger where nothing may be written: SQLite wants to make two files beside one in WAL mode."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from plad.rundir.writing import may_write


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
