"""Watching a student while it is distilled, and keeping its best weights."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plad.errors import RunDirError
from plad.rundir import atomic_dir, is_complete, verify_dir
from plad.scoring.layout import Group
from plad.scoring.score import Route, score

WEIGHTS = "trained.safetensors"


@torch.no_grad()
def probe_logps(model: nn.Module, groups: Sequence[Group], route: Route) -> dict[str, float]:
    """Mean log-probability a token of the chosen and of the rejected texts of a few fixed pairs."""
    model.eval()
    chosen: list[float] = []
    rejected: list[float] = []
    for group in groups:
        means = score(model, [group], route=route).means().tolist()
        chosen.extend(means[: group.chosen])
        rejected.extend(means[group.chosen : group.candidates])
    names = {"chosen_logp": chosen, "rejected_logp": rejected}
    return {name: sum(v) / len(v) for name, v in names.items() if v}


def evaluation_steps(total: int, evaluations: int) -> set[int]:
    """Evenly spaced steps, the last one included."""
    return {round(total * (i + 1) / evaluations) for i in range(evaluations)} if evaluations else set()


def _rank(result: dict[str, Any]) -> tuple[float, float]:
    return (result.get("win_rate", 0.0), result.get("rougeL", 0.0))


class KeepBest(TrainerCallback):
    """Validates at fixed steps and keeps the weights of the best one on disk.

    Args:
        validate: returns the validation's figures for the current weights.
        emit: receives {"step", "validation"} rows.
        evaluations: how many, evenly spaced, besides the one before the first step.
        folder: holds the best weights, written whole or not at all.
    """

    def __init__(
        self,
        model: nn.Module,
        validate: Callable[[], dict[str, Any]],
        emit: Callable[[dict[str, Any]], None],
        *,
        evaluations: int,
        folder: Path,
    ) -> None:
        self.model, self.validate, self.emit = model, validate, emit
        self.evaluations, self.folder = evaluations, folder
        self.steps: set[int] = set()

    def best(self) -> dict[str, Any] | None:
        """{"step", "validation"} of the best weights so far."""
        if not is_complete(self.folder):
            return None
        return json.loads((self.folder / "best.json").read_text())

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.steps = evaluation_steps(state.max_steps, self.evaluations)
        if state.global_step == 0:
            shutil.rmtree(self.folder, ignore_errors=True)  # left by a run that never reached a checkpoint
            self.emit({"step": 0, "validation": self.validate()})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step not in self.steps:
            return
        result = self.validate()
        self.emit({"step": state.global_step, "validation": result})
        best = self.best()
        # A best from a later step was left by a run that was killed and is now being repeated.
        if best is None or best["step"] > state.global_step or _rank(result) > _rank(best["validation"]):
            self._keep({"step": state.global_step, "validation": result})

    def _keep(self, best: dict[str, Any]) -> None:
        with atomic_dir(self.folder) as staging:
            weights = {n: p.detach().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
            save_file(weights, staging / WEIGHTS)
            (staging / "best.json").write_text(json.dumps(best))

    def restore(self) -> dict[str, Any]:
        """Put the best weights back into the model; returns {"step", "validation"}.

        Raises:
            RunDirError: the stored weights are missing or damaged.
        """
        verify_dir(self.folder)
        weights = load_file(self.folder / WEIGHTS)
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if weights.keys() != trained.keys():
            raise RunDirError(
                "the best weights belong to other parameters than those trained now",
                where=str(self.folder),
                fix="--clean distill trains from the beginning",
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(weights[name])
        best = self.best()
        assert best is not None
        return best
