"""Folders that a stage finishes one by one, so that an interrupted stage goes on with the next."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, JsonValue

from plad.policy.fingerprint import MADE_FROM
from plad.rundir.atomic import atomic_dir, is_complete, verify_dir, write_json
from plad.rundir.reading import AGAIN, reading

log = logging.getLogger("plad")


class MadeFrom(BaseModel):
    """What a folder was made from, as a hash, and what was counted."""

    inputs: str
    counts: dict[str, JsonValue]


def made_from(folder: Path) -> MadeFrom:
    """What stands in a finished folder."""
    with reading(folder / MADE_FROM, f"delete the folder {folder}, then {AGAIN}"):
        return MadeFrom.model_validate_json((folder / MADE_FROM).read_text(encoding="utf-8"))


def save_finished(folder: Path, save: Callable[[Path], None], inputs: str, counts: Mapping[str, object]) -> None:
    """Fill a folder, whole or not at all, and leave in it what it was made from."""
    with atomic_dir(folder) as staging:
        save(staging)
        write_json(staging / MADE_FROM, {"inputs": inputs, "counts": counts})


def finished_before(folder: Path, inputs: str) -> dict[str, JsonValue] | None:
    """The counts of a folder that an interrupted run of this stage finished; None if it must be made.

    Raises:
        RunDirError: the folder is damaged.
    """
    if not is_complete(folder):
        return None
    verify_dir(folder)
    made = made_from(folder)
    if made.inputs == inputs:
        return made.counts
    log.info("%s was made with other settings: making it again", folder)
    return None


def keep_counts(folder: Path) -> None:
    """Let go of what a finished folder holds, but not of the fact that it was finished, or of its counts."""
    made = (folder / MADE_FROM).read_text()
    with atomic_dir(folder) as staging:
        (staging / MADE_FROM).write_text(made)
