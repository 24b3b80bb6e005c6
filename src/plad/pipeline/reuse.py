"""What runs with the same settings need not make twice: finished stages of one run taken over by another.

Files are hard links where the file system allows them: nothing in a finished stage's output is ever changed in place.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plad.errors import RunDirError
from plad.policy.fingerprint import MADE_FROM
from plad.rundir.directory import OUTPUTS, RunDir, fingerprint, is_complete, ledger_of, read_manifest


def adopt(run: RunDir, stage: str, inputs: Mapping[str, Any], donors: Sequence[Path]) -> Path | None:
    """Take a stage over from the first of other runs that finished it with the very same inputs.

    Args:
        inputs: all that the stage depends on; those of the stages before it are in it by their fingerprints.
        donors: run directories; one that is none is passed over.

    Returns:
        The donor; None where no run has it.
    """
    wanted = fingerprint(json.loads(json.dumps(inputs, default=str)))
    outputs = [name for name in OUTPUTS[stage] if not name.startswith("checkpoints/")]
    if stage == "baselines":
        outputs.append("baselines")
    for donor in donors:
        entry = _stages(donor).get(stage)
        if entry is None or entry["fingerprint"] != wanted:
            continue
        made = [name for name in outputs if (donor / name).exists()]
        if outputs and not made:
            continue  # deleted by hand
        for name in made:
            _link(donor / name, run / name)
        _copy_metrics(donor, run, lambda row: row["stage"].partition("/")[0] == stage)
        run.manifest["stages"][stage] = {**entry, "taken_from": str(donor)}
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
        if not is_complete(donor / folder):
            continue
        if json.loads((donor / folder / MADE_FROM).read_text())["inputs"] == signature:
            _link(donor / folder, run / folder)
            _copy_metrics(donor, run, lambda row: row["stage"] == folder)
            return donor
    return None


def adopt_answers(run: RunDir, donors: Sequence[Path]) -> int:
    """Copy the answers of other runs into this run's ledger; returns their number.

    Those that share it are passed over, as is a folder that is no run.

    Raises:
        RunDirError: a ledger can't be read.
    """
    from plad.answers.ledger import Ledger

    taken = 0
    for donor in donors:
        ledger = ledger_of(donor, read_manifest(donor)) if _stages(donor) else run.ledger
        if ledger.is_file() and ledger.resolve() != run.ledger.resolve():
            with Ledger(run.ledger) as own:
                taken += own.take_over(ledger)
    return taken


def _stages(donor: Path) -> dict[str, Any]:
    try:
        return read_manifest(donor)["stages"]
    except RunDirError:
        return {}


def _link(source: Path, target: Path) -> None:
    """A copy of a file or folder that shares its bytes, put into place whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        copy = staging / target.name
        if source.is_dir():
            shutil.copytree(source, copy, copy_function=_link_file)
            shutil.rmtree(target, ignore_errors=True)
        else:
            _link_file(source, copy)
        copy.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _copy_metrics(donor: Path, run: RunDir, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Append a donor's rows of metrics; rows that are there already were copied by a run that was killed."""
    file, own = donor / "metrics.jsonl", run / "metrics.jsonl"
    if not file.is_file():
        return
    have = set(own.read_text(encoding="utf-8").splitlines()) if own.is_file() else set()
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # a torn line
            if line not in have and wanted(json.loads(line)):
                run.append_metrics(json.loads(line))
