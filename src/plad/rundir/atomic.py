"""Files and folders that exist whole or not at all."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from pydantic import TypeAdapter

from plad.errors import RunDirError
from plad.rundir.fingerprint import file_sha256
from plad.rundir.reading import AGAIN, reading
from plad.rundir.writing import write_error

COMPLETE = "COMPLETE"  # marker in a finished folder: {file name: sha256}
_MARKER = TypeAdapter(dict[str, str])


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _staging(path: Path) -> Path:
    """A name beside `path` that nobody has; `sweep_staging` knows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"


@contextlib.contextmanager
def _failed_writes(path: Path) -> Generator[None]:
    """A write that fails for want of room or rights is one error that names the place, whoever wrote."""
    try:
        yield
    except Exception as e:
        named = str(getattr(e, "filename", None) or path)
        known = write_error(e, path if ".tmp" in named else Path(named))
        if known is None:
            raise
        raise known from e


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well."""
    with _failed_writes(path):
        temporary = _staging(path)
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the user's umask
            yield temporary
            _fsync(temporary)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def atomic_dir(path: Path) -> Generator[Path]:
    """A staging folder that becomes `path`, with a COMPLETE marker of hashes, when the block ends well.

    An existing `path` is replaced only then. A README.md may be rewritten later and is not hashed.
    """
    with _failed_writes(path):
        staging = _staging(path)
        staging.mkdir()
        try:
            yield staging
            _finish(staging)
            old = path.parent / f".{path.name}.old.tmp"
            if path.exists():
                path.replace(old)
            staging.replace(path)  # killed before this line, `sweep_staging` puts the finished folder into place
            _fsync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _finish(staging: Path) -> None:
    """Bring a folder to the disk, with its marker."""
    files = sorted(p for p in staging.rglob("*") if p.is_file() and p.name != "README.md")
    hashes = {str(p.relative_to(staging)): file_sha256(p) for p in files}
    mode = staging.stat().st_mode & 0o666  # as the user's umask has it: some writers leave their files to their owner
    for p in files:
        p.chmod(mode)
        _fsync(p)
    write_json(staging / COMPLETE, hashes)


def is_complete(path: Path) -> bool:
    """Whether a folder was written whole."""
    return (path / COMPLETE).is_file()


def read_marker(path: Path, again: str = AGAIN) -> dict[str, str]:
    """Files of a finished folder, with their hashes."""
    with reading(path / COMPLETE, _delete(path, again)):
        return _MARKER.validate_json((path / COMPLETE).read_bytes())


def _delete(path: Path, again: str) -> str:
    return f"delete the folder {path}, then {again}"


def verify_dir(path: Path, again: str = AGAIN) -> None:
    """Check a finished folder against its marker.

    Args:
        again: what makes the folder again once it is deleted.

    Raises:
        RunDirError: it is unfinished, or a file is missing or differs.
    """
    if not is_complete(path):
        what = "the folder was not written completely" if path.exists() else "the folder is missing"
        raise RunDirError(what, where=str(path), fix=_delete(path, again) if path.exists() else again)
    for name, digest in read_marker(path, again).items():
        file = path / name
        if not file.is_file() or file_sha256(file) != digest:
            raise RunDirError(
                "file is missing or damaged (hash differs)",
                where=str(file),
                fix=f"restore it from a copy\nor {_delete(path, again)}",
            )


def sweep_staging(path: Path) -> list[str]:
    """Clear up what killed writes left behind below `path`; returns the names of what was removed.

    A folder that was finished but not yet moved into its place is moved there.
    """
    left = sorted(path.rglob(".*.tmp"), key=lambda p: p.name.endswith(".old.tmp"))
    removed: list[str] = []
    for p in left:
        target = p.parent / p.name[1:].rsplit(".", 2)[0]
        if p.is_dir() and is_complete(p) and not target.exists():
            p.replace(target)
            continue
        shutil.rmtree(p, ignore_errors=True) if p.is_dir() else p.unlink(missing_ok=True)
        removed.append(str(p.relative_to(path)))
    return removed
