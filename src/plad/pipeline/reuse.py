"""What runs with the same settings need not make twice: finished stages of one run taken over by another.

Files are hard links where the file system allows them: nothing in a finished stage's output is ever changed in place.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plad.answers.ledger import Ledger
from plad.errors import RunDirError
from plad.pipeline.finished import made_from
from plad.pipeline.outputs import lost
from plad.pipeline.stage import Inputs, Stage
from plad.rundir.atomic import is_complete
from plad.rundir.directory import RunDir
from plad.rundir.fingerprint import as_json, fingerprint
from plad.rundir.manifest import Manifest, read_manifest
from plad.rundir.training_log import TrainingLog, Wanted


def adopt(run: RunDir, stage: Stage, inputs: Inputs, donors: Sequence[Path]) -> Path | None:
    """Take a stage over from the first of other runs that finished it with the very same inputs.

    Args:
        inputs: all that the stage depends on; those of the stages before it are in it by their fingerprints.
        donors: run directories; one that is none is passed over.

    Returns:
        The donor; None where no run has it.
    """
    wanted = fingerprint(as_json(inputs))
    outputs = [name for name in (*stage.outputs, *stage.lasting) if not name.startswith("checkpoints/")]
    for donor in donors:
        record = _manifest(donor).stages.get(stage.name)
        if record is None or record.fingerprint != wanted:
            continue
        there = [name for name in outputs if (donor / name).exists()]
        if lost(donor, stage, _manifest(donor)):
            continue  # deleted by hand, or cut
        for name in there:
            _link(donor / name, run / name)
        _copy_log(donor, run, lambda of, _: of.partition("/")[0] == stage.name)
        run.manifest.stages[stage.name] = record.model_copy(update={"taken_from": str(donor)})
        run.save()
        return donor
    return None


def adopt_fine_tuned(run: RunDir, role: str, signature: str, donors: Sequence[Path]) -> Path | None:
    """Take one fine-tuned policy over, where the stage as a whole differs.

    Args:
        signature: what the policy is made from, as it stands in its folder's made_from.json.
    """
    folder = f"sft/{role}"
    if is_complete(run / folder):
        return None
    for donor in donors:
        if is_complete(donor / folder) and made_from(donor / folder).inputs == signature:
            _link(donor / folder, run / folder)
            _copy_log(donor, run, lambda of, _: of == folder)
            return donor
    return None


def name_models_as(run: RunDir, donors: Sequence[Path]) -> None:
    """Let a run that has no stage yet name models as the first of other runs does, so that their stages compare."""
    known = [manifest.fingerprints for manifest in map(_manifest, donors) if manifest.stages]
    if known and not run.manifest.stages:
        run.manifest.fingerprints = known[0]
        run.save()


def adopt_answers(run: RunDir, donors: Sequence[Path]) -> int:
    """Copy the answers of other runs into this run's ledger; returns their number.

    Those that share it are passed over, as is a folder that is no run.

    Raises:
        RunDirError: a ledger can't be read.
    """
    taken = 0
    for donor in donors:
        manifest = _manifest(donor)
        file = manifest.ledger_file(donor) if manifest.stages else run.ledger
        if file.is_file() and file.resolve() != run.ledger.resolve():
            with Ledger(run.ledger) as ledger:
                taken += ledger.take_over(file)
    return taken


def _manifest(donor: Path) -> Manifest:
    try:
        return read_manifest(donor)
    except RunDirError:
        return Manifest()


def _link(source: Path, target: Path) -> None:
    """A copy of a file or folder that shares its bytes, put into place whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        copy = staging / target.name
        if source.is_dir():
            for file in (source, *sorted(source.rglob("*"))):
                place = copy / file.relative_to(source)
                place.mkdir() if file.is_dir() else _link_file(file, place)
            shutil.rmtree(target, ignore_errors=True)
        else:
            _link_file(source, copy)
        copy.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system or user, or one without links
        shutil.copyfile(source, target)


def _copy_log(donor: Path, run: RunDir, wanted: Wanted) -> None:
    run.log.copy(TrainingLog(donor / "metrics.jsonl"), wanted)
