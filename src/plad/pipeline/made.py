"""Folders that a stage finishes one by one, so that an interrupted stage goes on with the next."""

import json
import logging
from pathlib import Path
from typing import Any

from plad.policy.fingerprint import MADE_FROM
from plad.rundir.directory import atomic_dir, is_complete, verify_dir, write_json

log = logging.getLogger("plad")


def sign(folder: Path, inputs: str, counts: dict[str, Any]) -> None:
    """Leave in a folder what it was made from, and what was counted."""
    write_json(folder / MADE_FROM, {"inputs": inputs, "counts": counts})


def made_before(folder: Path, inputs: str) -> dict[str, Any] | None:
    """The counts of a folder that an interrupted run of this stage finished; None if it must be made.

    Raises:
        RunDirError: the folder is damaged.
    """
    if not is_complete(folder):
        return None
    verify_dir(folder)
    made = json.loads((folder / MADE_FROM).read_text())
    if made["inputs"] == inputs:
        return made["counts"]
    log.info("%s was made with other settings: making it again", folder)
    return None


def keep_counts(folder: Path) -> None:
    """Let go of what a finished folder holds, but not of the fact that it was finished, or of its counts."""
    made = (folder / "made_from.json").read_text()
    with atomic_dir(folder) as staging:
        (staging / "made_from.json").write_text(made)
