"""A run that this user may read and not write: root, who may write everything, gives its privileges up first."""

import ctypes
import multiprocessing
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.command import call

_CAPABILITIES_V3 = 0x20080522


@contextmanager
def open_folder() -> Generator[Path]:
    """A folder that every user can reach: pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


def protect(folder: Path) -> None:
    """Take the right to write away from everybody."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def call_without_rights(*args: object) -> tuple[int, str, str]:
    """`call` in a process that rights count for: the modes of files bind it, whoever it is."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_call, args=(theirs, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _call(pipe: Connection, args: tuple[object, ...]) -> None:
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
    pipe.send(call(*args))
