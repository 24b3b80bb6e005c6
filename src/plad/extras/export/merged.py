"""The student as one Hugging Face folder."""

import shutil

from plad.extras.export.handover import Handover
from plad.rundir.atomic import COMPLETE, atomic_dir, verify_dir


def export_merged(handover: Handover) -> str:
    """Copy the student, whole and verified."""
    out = handover.place("merged", folder=True)
    student = handover.student()
    with atomic_dir(out) as staging:
        shutil.copytree(student, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(COMPLETE))
    verify_dir(out)
    return f"wrote {out}"
