"""What is said where a file can't be written: one sentence for a full disk, a limit or a quota, one for a closed place.

Libraries name the reason in their own ways: an OSError's number, safetensors' `(os error 27)`, pyarrow's `[Errno 28]`;
torch only says that its writer failed.
"""

import errno
import os
import re
from pathlib import Path

from plad.errors import RunDirError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = {errno.EISDIR: "is a folder, where a file belongs", errno.ENOTDIR: "is a file, where a folder belongs"}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_NUMBER = re.compile(r"\b(?:os error|errno) (\d+)", re.IGNORECASE)
_TORCH = ("PytorchStreamWriter failed", "file write failed", "inline_container", "iostream error")
KEEPS = "everything finished so far is kept"


def write_error(error: BaseException, place: Path) -> RunDirError | None:
    """The error that says why something can't be written, or read, at a place; None where that is not what happened.

    Args:
        place: the file or folder, which may not exist yet.
    """
    if isinstance(error, RunDirError):
        return None
    number = _number(error)
    if number in _FULL or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in _TORCH)):
        reason = os.strerror(number) if number else "only a part could be written"
        return RunDirError(
            f"can't write: {reason}; {room(place)}",
            where=str(place),
            fix="make room, or lift the limit on file size or the quota; then run the same command again: " + KEEPS,
        )
    if number in _IN_THE_WAY:
        return RunDirError(
            _IN_THE_WAY[number], where=str(place), fix="remove it, or move it away; then run the same command again"
        )
    if number not in _CLOSED:
        return None
    if place.exists() and not os.access(place, os.R_OK):
        fix = "make it readable for this user"
        return RunDirError(f"can't be read: {os.strerror(number)}", where=str(place), fix=fix)
    return RunDirError(
        f"can't be written: {os.strerror(number)}",
        where=str(place),
        fix="make it writable for this user, or name another place\n"
        "plad status, show, ledger and report --terminal read a run and write nothing",
    )


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def room(place: Path) -> str:
    """What is left on the file system of a place, in words."""
    try:
        left = os.statvfs(next(p for p in (place, *place.absolute().parents) if p.exists()))
    except OSError:
        return "how much is free there can't be told"
    mib = f"{left.f_bavail * left.f_frsize / 2**20:,.0f} MiB are free there"
    return f"{mib}, but no inode for another file" if left.f_files and not left.f_favail else mib


def may_write(file: Path) -> bool:
    """Whether this user may write a file, and make others beside it."""
    mine = os.access in os.supports_effective_ids
    folder = os.access(file.absolute().parent, os.W_OK | os.X_OK, effective_ids=mine)
    return folder and (not file.exists() or os.access(file, os.W_OK, effective_ids=mine))
