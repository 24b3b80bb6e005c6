"""A run is a directory: created or resumed, locked, written atomically, every stage fingerprinted."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plad.errors import RunDirError
from plad.rundir.lock import acquire

SCHEMA = 1
STAGES = ("data", "sft", "generate", "pair", "distill", "baselines", "evaluate", "report")
OUTPUTS = {  # what --clean deletes, as patterns; answers stay in the ledger, baselines until pairs go or they are named
    "data": ("data",),
    "sft": ("sft", "checkpoints/sft-*"),
    "generate": (),
    "pair": ("pairs.parquet", "teacher_logits", "baselines"),
    "distill": ("student", "rounds", "checkpoints/distill*", "checkpoints/rounds"),
    "baselines": ("checkpoints/baselines-*",),
    "evaluate": ("eval",),
    "report": ("report",),
}
FULL = 2**26  # bytes; with less than this left, a failed write is a full disk
COMPLETE = "COMPLETE"  # marker in a finished folder: {file name: sha256}


def fingerprint(value: Any) -> str:
    """Stable hash of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
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


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
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


@dataclass
class RunDir:
    """An open, locked run directory. Use `open_run` to get one."""

    path: Path
    manifest: dict[str, Any]
    _lock: Any = field(default=None, repr=False)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def id(self) -> str:
        """The run's own name, by which a ledger that several share tells who got an answer."""
        return self.manifest["id"]

    @property
    def ledger(self) -> Path:
        """The file of its answers."""
        return ledger_of(self.path, self.manifest)

    def set_ledger(self, path: Path | None) -> None:
        """Keep the answers in a file outside the run directory; None for its own."""
        if path is None:
            self.manifest.pop("ledger", None)
        else:
            self.manifest["ledger"] = str(path.expanduser().absolute())
        self.save()

    def inputs(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage was made from, or None."""
        entry = self.manifest["stages"].get(stage)
        return entry["inputs"] if entry else None

    def fingerprint(self, stage: str) -> str:
        """Fingerprint of a finished stage's inputs; stages that depend on it hold it in theirs."""
        return self.manifest["stages"][stage]["fingerprint"]

    def counts(self, stage: str) -> dict[str, Any]:
        """What a finished stage counted."""
        return self.manifest["stages"][stage]["counts"]

    def is_done(self, stage: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the stage is finished and was made from these very inputs.

        Raises:
            RunDirError: it is finished, but from other inputs.
        """
        entry = self.manifest["stages"].get(stage)
        if entry is None:
            return False
        now = json.loads(json.dumps(inputs, default=str))
        if entry["fingerprint"] == fingerprint(now):
            return True
        changed = "; ".join(differences(entry["inputs"], now))
        raise RunDirError(
            f"stage {stage} was made with other settings: {changed}",
            where=str(self.path),
            fix=f"--clean {stage} does it and all that depends on it again (recorded answers are kept)\n"
            "run.dir=NEW keeps this run and starts another\n"
            "or put the setting back",
        )

    def finish(self, stage: str, inputs: Mapping[str, Any], counts: Mapping[str, Any], seconds: float) -> None:
        """Record a stage as finished."""
        now = json.loads(json.dumps(inputs, default=str))
        self.manifest["stages"][stage] = {
            "fingerprint": fingerprint(now),
            "inputs": now,
            "counts": dict(counts),
            "seconds": round(seconds, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self.save()

    def forget(self, stage: str) -> list[str]:
        """Forget a stage and everything after it, with what they made; returns the names of those that were done.

        The ledger of generations is kept: nothing that was sampled is sampled twice.
        """
        gone = STAGES[STAGES.index(stage) :]
        forgotten = [s for s in gone if self.manifest["stages"].pop(s, None)]
        self.manifest["cleaning"] = list(gone)
        self.save()  # killed from here on, the next run finishes the cleaning
        self.finish_cleaning()
        return forgotten

    def finish_cleaning(self) -> None:
        """Delete what the stages being cleaned made."""
        gone = self.manifest.get("cleaning", ())
        for made in [path for stage in gone for pattern in OUTPUTS[stage] for path in self.path.glob(pattern)]:
            self.drop(str(made.relative_to(self.path)))
        if gone[:1] == ["baselines"]:
            self.drop("baselines")
        keep_metrics(self / "metrics.jsonl", lambda row: row["stage"].partition("/")[0] not in gone)
        if self.manifest.pop("cleaning", None):
            self.save()

    def drop(self, name: str) -> None:
        """Delete a file or folder of this run."""
        place = (self.path / name).resolve()
        if not place.is_relative_to(self.path.resolve()) or place == self.path.resolve():
            raise RunDirError("refusing to delete outside the run directory", where=str(place))
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    def set_versions(self, versions: Mapping[str, str]) -> None:
        """Record what the run is made with."""
        self.manifest["versions"] = dict(versions)
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / "manifest.json", self.manifest)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("ab+") as f:
            if f.tell():
                f.seek(-1, os.SEEK_END)
                if f.read(1) != b"\n":  # a line that a full disk or a power cut tore
                    f.write(b"\n")
            f.write(json.dumps(row).encode() + b"\n")

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def keep_metrics(file: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Keep only the wanted rows of a metrics file; torn lines go in any case."""
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    kept: list[str] = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            if wanted(json.loads(line)):
                kept.append(line)
    if len(kept) < len(lines):
        write_text(file, "".join(f"{line}\n" for line in kept))


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """`a.b 1 -> 2` for everything in which two nested values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key} {json.dumps(old)} -> {json.dumps(new)}"


def check_place(path: Path) -> None:
    """Check that a run directory may be made or continued here.

    Raises:
        RunDirError: it points upwards, is a link or a file, or holds something that is no run.
    """
    if ".." in path.parts:
        raise RunDirError(
            "a run directory may not point upwards", where=f"run.dir={path}", fix="name a folder below this one"
        )
    if path.is_symlink():
        raise RunDirError("a run directory may not be a symbolic link", where=f"run.dir={path}", fix="name the folder")
    if path.exists() and not path.is_dir():
        raise RunDirError("is a file, not a folder", where=f"run.dir={path}", fix="name another folder")
    if path.is_dir() and any(path.iterdir()) and not (path / "manifest.json").is_file():
        names = {p.name for p in path.iterdir()} - {"run.lock", "run.log"}
        if names:
            raise RunDirError(
                "folder exists and holds no run; nothing is overwritten",
                where=f"run.dir={path}",
                fix="name an empty or new folder",
            )


def open_run(path: Path) -> RunDir:
    """Create or resume a run directory and lock it.

    A lock dies with its process, so a killed run never blocks the next one.

    Raises:
        RunDirError: the place is unfit, in use, or of another schema.
    """
    check_place(path)
    path.mkdir(parents=True, exist_ok=True)
    lock = acquire(path)
    try:
        manifest = read_manifest(path) if (path / "manifest.json").is_file() else {"schema": SCHEMA, "stages": {}}
    except BaseException:
        lock.close()
        raise
    manifest.setdefault("id", secrets.token_hex(8))
    run = RunDir(path, manifest, lock)
    run.save()
    return run


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run directory, for readers that don't lock it.

    Raises:
        RunDirError: there is none, or it is of another schema.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise RunDirError("not a run directory (no manifest.json)", where=str(path), fix="plad run CONFIG makes one")
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as e:
        raise RunDirError(f"damaged manifest ({e})", where=str(file), fix="start a new run.dir") from None
    if manifest.get("schema") != SCHEMA:
        raise RunDirError(
            f"written by another version of plad (schema {manifest.get('schema')}, this one reads {SCHEMA})",
            where=str(path),
            fix="use that version, or start a new run.dir",
        )
    return manifest


def ledger_of(path: Path, manifest: Mapping[str, Any]) -> Path:
    """The file of a run's answers."""
    return Path(manifest.get("ledger") or path / "generations.sqlite")


def stages_done(manifest: Mapping[str, Any]) -> Sequence[str]:
    """Names of the finished stages, in order."""
    return [s for s in STAGES if s in manifest["stages"]]
