"""Checkpoints that exist whole or not at all, and are trusted only after their hashes are checked."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from plad.errors import RunDirError, TrainingError
from plad.rundir.atomic import atomic_dir, is_complete, verify_dir

PROGRESS = "progress.json"  # in a checkpoint: seconds spent, and what the texts of its steps go on from
KEPT = 2  # the newest, and the one before it in case the newest is damaged on disk


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in `folder`, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and is_complete(p)]
    return sorted(found, key=_step)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest finished checkpoint, verified against its hashes; None if there is none.

    Raises:
        TrainingError: it is damaged; names the file and the previous good checkpoint.
    """
    found = checkpoints(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        verify_dir(newest)
    except RunDirError as e:
        previous = found[-2] if len(found) > 1 else None
        resume = f"{newest} and run again: training resumes from {previous or 'its beginning'}"
        raise TrainingError(
            "the newest checkpoint is damaged", where=e.where, fix=f"restore the file\nor delete {resume}"
        ) from None
    return newest


def rotate(folder: Path) -> None:
    """Delete all but the newest checkpoints."""
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def trained_with(checkpoint: Path) -> dict[str, object]:
    """The settings a checkpoint was trained with."""
    return json.loads((checkpoint / "settings.json").read_text())


class WholeCheckpoints:
    """A mixin for transformers' Trainer: a checkpoint is staged, hashed, and moved into place.

    Attributes:
        settings: what the run depends on, stored in each checkpoint.
    """

    settings: Mapping[str, object]
    args: TrainingArguments
    state: TrainerState
    _staging: Path | None = None

    def progress(self) -> Mapping[str, object] | None:
        """What the run goes on from beside weights and state; goes into the checkpoint."""
        return None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into a staging folder, hash it, and move it into place."""
        folder = Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        with atomic_dir(folder / name) as staging:
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            finally:
                self._staging = None
            for file in (staging / name).iterdir():
                shutil.move(file, staging / file.name)
            (staging / name).rmdir()
            (staging / "settings.json").write_text(json.dumps(dict(self.settings), default=str))
            progress = self.progress()
            if progress is not None:
                (staging / PROGRESS).write_text(json.dumps(progress))
        rotate(folder)
