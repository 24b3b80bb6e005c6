"""A run is a directory: created or resumed, locked, every finished stage recorded with what it was made from."""

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from plad.errors import RunDirError
from plad.progress import duration
from plad.rundir.atomic import write_json
from plad.rundir.fingerprint import as_json, differences, fingerprint
from plad.rundir.lock import Lock, acquire
from plad.rundir.manifest import FILE, FINGERPRINTS, Manifest, StageRecord, Stopped, read_manifest
from plad.rundir.training_log import TrainingLog


@dataclass
class RunDir:
    """An open, locked run directory. Use `open_run` to get one."""

    path: Path
    manifest: Manifest
    _lock: Lock | None = field(default=None, repr=False)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def id(self) -> str:
        """The run's own name, by which a ledger that several share tells who got an answer."""
        return self.manifest.id

    @property
    def ledger(self) -> Path:
        """The file of its answers."""
        return self.manifest.ledger_file(self.path)

    @property
    def log(self) -> TrainingLog:
        """The rows of its training."""
        return TrainingLog(self.path / "metrics.jsonl")

    def set_ledger(self, path: Path | None) -> None:
        """Keep the answers in a file outside the run directory; None for its own."""
        self.manifest.ledger = None if path is None else str(path.expanduser().absolute())
        self.save()

    def inputs(self, stage: str) -> dict[str, JsonValue] | None:
        """What a finished stage was made from, or None."""
        record = self.manifest.stages.get(stage)
        return record.inputs if record else None

    def fingerprint(self, stage: str) -> str:
        """Fingerprint of a finished stage's inputs; stages that depend on it hold it in theirs."""
        return self.manifest.stages[stage].fingerprint

    def counts(self, stage: str) -> dict[str, JsonValue]:
        """What a finished stage counted."""
        return self.manifest.stages[stage].counts

    def is_done(
        self, stage: str, inputs: Mapping[str, object], later: Sequence[str] = (), named: Callable[[str], str] = str
    ) -> bool:
        """Whether the stage is finished and was made from these very inputs.

        Args:
            later: stages that are made from it.
            named: what the user calls a key of the inputs.

        Raises:
            RunDirError: it is finished, but from other inputs.
        """
        record = self.manifest.stages.get(stage)
        if record is None:
            return False
        now = as_json(inputs)
        if record.fingerprint == fingerprint(now):
            return True
        changed = "; ".join(dict.fromkeys(differences(record.inputs, now, named=named)))
        made = [name for name in (stage, *later) if name in self.manifest.stages]
        seconds = sum(self.manifest.stages[name].seconds for name in made)
        raise RunDirError(
            f"stage {stage} was made with other settings: {changed}",
            where=str(self.path),
            fix=f"plad run CONFIG --clean {stage} makes {', '.join(made)} again, which took {duration(seconds)}; "
            "answers are kept\n"
            "run.dir=NEW keeps this run and starts another\n"
            "or put the setting back",
        )

    def finish(
        self,
        stage: str,
        inputs: Mapping[str, object],
        counts: Mapping[str, object],
        seconds: float,
        *,
        files: Mapping[str, int] | None = None,
        made: str = "",
    ) -> None:
        """Record a stage as finished.

        Args:
            files: that it made, with their sizes.
            made: fingerprint of the models among them.
        """
        now = as_json(inputs)
        self.manifest.stages[stage] = StageRecord(
            fingerprint=fingerprint(now),
            inputs=now,
            counts=as_json(counts),
            seconds=round(seconds, 1),
            finished=_now(),
            files=dict(files or {}),
            made=made,
        )
        self.save()

    def stop(self, stage: str, why: str = "") -> None:
        """Record that a stage ended without being finished, and why; best effort, for the disk may be full."""
        self.manifest.stopped = Stopped(stage=stage, at=_now(), why=why)
        with contextlib.suppress(OSError, RunDirError):
            self.save()

    def forget(self, stages: Sequence[str]) -> list[str]:
        """Count stages as not done; returns those that were. Their files stay."""
        forgotten = [stage for stage in stages if self.manifest.stages.pop(stage, None)]
        self.save()
        return forgotten

    def clean(self, stages: Sequence[str], outputs: Sequence[str], logged: Sequence[str]) -> list[str]:
        """Forget stages and delete what they made; returns those that were done.

        The ledger of answers is kept: nothing that was sampled is sampled twice.

        Args:
            outputs: patterns of their files.
            logged: those of them whose rows of the training log go too.
        """
        self.manifest.cleaning = list(stages)
        forgotten = self.forget(stages)  # killed from here on, the next run finishes the cleaning
        self.finish_cleaning(outputs, logged)
        return forgotten

    def finish_cleaning(self, outputs: Sequence[str], logged: Sequence[str]) -> None:
        """Delete what the stages being cleaned made."""
        gone = self.manifest.cleaning
        for path in [path for pattern in outputs for path in self.path.glob(pattern)]:
            self.drop(str(path.relative_to(self.path)))
        self.log.keep(lambda stage, _: stage.partition("/")[0] not in logged)
        if gone:
            self.manifest.cleaning = []
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
        """Record what the run is made with, from now on."""
        self.manifest.versions = dict(versions)
        self.manifest.stopped = None
        self.save()

    def save(self) -> None:
        """Write the manifest.

        Raises:
            RunDirError: the directory is no longer there.
        """
        if self._lock is not None:
            self._lock.check()
        write_json(self.path / FILE, self.manifest.to_json())

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


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
    if path.is_dir() and any(path.iterdir()) and not (path / FILE).is_file():
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
        manifest = read_manifest(path) if (path / FILE).is_file() else Manifest(fingerprints=FINGERPRINTS)
    except BaseException:
        lock.close()
        raise
    manifest.id = manifest.id or secrets.token_hex(8)
    run = RunDir(path, manifest, lock)
    run.save()
    return run
