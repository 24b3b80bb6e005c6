"""Hand over what a run made: pairs for TRL, or the student as one model folder."""

import json
import shutil
from pathlib import Path
from typing import Literal

from plad.errors import RunDirError
from plad.rundir import COMPLETE, atomic_dir, atomic_file, is_complete, read_manifest, verify_dir

Format = Literal["trl", "merged"]


def export(run: Path, to: Format, out: Path | None = None) -> Path:
    """Write the pairs as TRL preference JSONL, or copy the student as a Hugging Face folder.

    Args:
        out: a file for trl, a folder for merged. Default: RUN/export/pairs.jsonl, RUN/export/merged.

    Returns:
        What was written.

    Raises:
        RunDirError: the run has none yet, its files are damaged, or `out` exists.
    """
    read_manifest(run)
    out = out or run / "export" / ("pairs.jsonl" if to == "trl" else "merged")
    if out.is_file() or out.is_symlink() or (out.is_dir() and (to == "trl" or any(out.iterdir()))):
        raise RunDirError("exists; nothing is overwritten", where=str(out), fix="give another --out")
    return _export_pairs(run, out) if to == "trl" else _export_student(run, out)


def _export_pairs(run: Path, out: Path) -> Path:
    from plad.data.formats import pair_to_trl, read_pairs_parquet

    if not (run / "pairs.parquet").is_file():
        raise RunDirError("no pairs yet", where=str(run), fix="plad pair CONFIG makes them")
    with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        for pair in read_pairs_parquet(run / "pairs.parquet"):
            f.write(json.dumps(pair_to_trl(pair), ensure_ascii=False) + "\n")
    return out


def _export_student(run: Path, out: Path) -> Path:
    student = run / "student"
    if not is_complete(student):
        raise RunDirError("no student yet", where=str(run), fix="plad distill CONFIG makes it")
    verify_dir(student)
    with atomic_dir(out) as staging:
        shutil.copytree(student, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(COMPLETE))
    verify_dir(out)
    return out
