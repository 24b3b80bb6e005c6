"""Files and folders that exist whole or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from plad.errors import RunDirError
from plad.rundir.fingerprint import file_sha256

FULL = 2**26  # bytes; with less than this left, a failed write is a full disk
COMPLETE = "COMPLETE"  # marker in a finished folder: {file name: sha256}


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        _fsync(temporary)
        os.chmod(temporary, 0o644)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield staging
        os.chmod(staging, 0o755)
        files = sorted(p for p in staging.rglob("*") if p.is_file() and p.name != "README.md")
        hashes = {str(p.relative_to(staging)): file_sha256(p) for p in files}
        for p in files:
            p.chmod(0o644)  # some writers leave their files to their owner alone
            _fsync(p)
        write_json(staging / COMPLETE, hashes)
        old = path.parent / f".{path.name}.old.tmp"
        if path.exists():
            path.replace(old)
        staging.replace(path)  # killed before this line, `sweep_staging` puts the finished folder into place
        _fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as e:
        free = shutil.disk_usage(path.parent).free
        if free < FULL:
            raise RunDirError(
                f"the disk is full ({free / 2**20:.0f} MB left): {e}",
                where=str(path),
                fix="make space and run the same command again; nothing finished is lost",
            ) from e
        raise
    finally:
        if staging.exists():
            shutil.rmtree(staging, ignore_errors=True)


def is_complete(path: Path) -> bool:
    """Whether a folder was written whole."""
    return (path / COMPLETE).is_file()


def verify_dir(path: Path) -> None:
    """Check a finished folder against its marker.

    Raises:
        RunDirError: it is unfinished, or a file is missing or differs.
    """
    if not is_complete(path):
        raise RunDirError(
            "the folder was not written completely", where=str(path), fix="delete it and run the stage again"
        )
    for name, digest in json.loads((path / COMPLETE).read_text()).items():
        file = path / name
        if not file.is_file() or file_sha256(file) != digest:
            raise RunDirError(
                "file is missing or damaged (hash differs)",
                where=str(file),
                fix="restore it from a copy\nor remove the folder and run the stage again",
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
