"""Whether what a finished stage made is still there: by name and size, nothing is hashed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from plad.pipeline.stage import Stage
from plad.policy.fingerprint import folder_fingerprint
from plad.rundir.atomic import is_complete, read_marker
from plad.rundir.directory import RunDir
from plad.rundir.fingerprint import fingerprint
from plad.rundir.manifest import Manifest, StageRecord

_REWRITTEN = "README.md"  # the card, by the report


def lost(path: Path, stage: Stage, manifest: Manifest) -> list[str]:
    """Files that a finished stage of the run in `path` made and that are gone, or cut; by what is recorded of them.

    A run of a version that recorded none lacks what is not there at all, and what a folder's marker names.
    """
    if stage.name == "generate":
        ledger = manifest.ledger_file(path)
        return [] if ledger.is_file() and ledger.stat().st_size else [str(ledger)]
    known = manifest.stages.get(stage.name, StageRecord()).files or dict.fromkeys(_expected(path, stage), 0)
    return [name for name, size in known.items() if not _is_whole(path / name, size)]


def _is_whole(file: Path, size: int) -> bool:
    return file.is_file() and (file.stat().st_size == size if size else file.stat().st_size > 0)


def _expected(path: Path, stage: Stage) -> Iterator[str]:
    for place in stage.makes:
        top = path / place
        if not top.is_dir() and not stage.optional:
            yield place
        for folder in (top, *top.glob("*")):
            if is_complete(folder):
                yield from (str(folder.relative_to(path) / name) for name in read_marker(folder))


def files_of(path: Path, stage: Stage) -> dict[str, int]:
    """The files of a stage with their sizes; 0 of one that is written again later."""
    tops = [path / place for place in (*stage.makes, *stage.also)]
    files = [f for top in tops for f in (sorted(top.rglob("*")) if top.is_dir() else [top])]
    return {
        str(f.relative_to(path)): 0 if stage.rewritten else f.stat().st_size
        for f in files
        if f.is_file() and f.name != _REWRITTEN and not f.name.endswith(".tmp")
    }


def fingerprint_of(path: Path, stage: Stage) -> str:
    """Of the models that a stage made and others build on; empty where it made none."""
    if stage.name not in ("sft", "distill"):
        return ""
    folders = [f for place in stage.makes for f in (path / place, *sorted((path / place).glob("*"))) if is_complete(f)]
    return fingerprint({str(f.relative_to(path)): folder_fingerprint(f) for f in folders})


def make_room(run: RunDir, stage: Stage, names: Sequence[str]) -> None:
    """Delete what is left of lost outputs, so that the stage makes them again and nothing else."""
    if stage.name == "generate":
        return
    if stage.unit == "stage":
        left = [str(p.relative_to(run.path)) for pattern in stage.outputs for p in run.path.glob(pattern)]
        if any(name.startswith("checkpoints/") for name in left):
            return  # a finished stage has none: it is being made again, and goes on from them
        names = left
    elif stage.unit == "folder":
        names = [str(Path(name).parent) if "/" in name else name for name in names]
    for name in dict.fromkeys(names):
        run.drop(name)
