"""Watching a policy while it is trained, and keeping its best weights."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # untyped dict
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plad.errors import RunDirError
from plad.rundir.atomic import atomic_dir, is_complete, verify_dir
from plad.rundir.training_log import TrainingLog
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from plad.train.alarms import alarms, sign_of

log = logging.getLogger("plad")

WEIGHTS = "trained.safetensors"

Figures = dict[str, float]
"""Of a validation, by name; those that `alarms` reads and `win_rate` and `rougeL`, where they were measured."""


class Validation(TypedDict):
    """The weights after a step, as validation found them."""

    step: int
    validation: Figures


def rank(figures: Mapping[str, float]) -> tuple[float, float]:
    """What weights are compared by: win rate, then ROUGE-L; the latter alone where no win rate was measured."""
    return (figures.get("win_rate", 0.0), figures.get("rougeL", 0.0))


_NAMES = {"win_rate": "win rate %.1f %%", "rougeL": "ROUGE-L %.1f"}


def told(figures: Mapping[str, float]) -> str:
    """`validation win rate 38.2 %, ROUGE-L 25.1`: what weights were compared by, and nothing that was not measured."""
    known = [form % (100 * figures[name]) for name, form in _NAMES.items() if name in figures]
    return f"validation {', '.join(known)}" if known else "nothing was measured on validation"


@torch.no_grad()
def probe_logps(model: nn.Module, groups: Sequence[Group], route: Route) -> dict[str, float]:
    """Mean log-probability a token of the better and the worse texts of a few fixed pairs, and the share in order."""
    model.eval()
    chosen: list[float] = []
    rejected: list[float] = []
    for group in groups:
        means = [float(mean) for mean in score(model, [group], route=route).means()]
        chosen += [means[better] for better, _ in group.preferences]
        rejected += [means[worse] for _, worse in group.preferences]
    if not chosen:
        return {}
    return {
        "chosen_logp": sum(chosen) / len(chosen),
        "rejected_logp": sum(rejected) / len(rejected),
        "accuracy": sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(chosen),
    }


def evaluation_steps(total: int, evaluations: int) -> set[int]:
    """Evenly spaced steps, the last one included."""
    return {round(total * (i + 1) / evaluations) for i in range(evaluations)} if evaluations else set()


class KeepBest(TrainerCallback):
    """Validates at fixed steps and keeps the weights of the best one on disk.

    Args:
        validate: returns the validation's figures for the current weights.
        log: receives the figures, and gives back those of a run that is resumed.
        stage: name in the log's rows.
        evaluations: how many, evenly spaced, besides the one before the first step.
        folder: holds the best weights, and their figures, written whole or not at all.
        patience: validations in a row without a better one after which training stops; None for never.
        watched: whether to look for signs of collapse in what changes; answers that are cut off, repeat themselves or
            are empty are signs in any case.
        warn: receives each sign once, and why training stopped early.

    Attributes:
        validations: so far, the one before the first step first.
        alarms, withdrawn: signs of collapse with their sentences; see `finish`.
    """

    def __init__(
        self,
        model: nn.Module,
        validate: Callable[[], Figures],
        log: TrainingLog,
        stage: str,
        *,
        evaluations: int,
        folder: Path,
        patience: int | None = None,
        watched: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.model, self.validate, self.log, self.stage = model, validate, log, stage
        self.evaluations, self.folder, self.patience = evaluations, folder, patience
        self.watched, self.warn = watched, warn
        self.steps: set[int] = set()
        self.validations: list[Validation] = []
        self.alarms: dict[str, str] = {}
        self.withdrawn: dict[str, str] = {}

    def best(self) -> Validation | None:
        """The best weights so far."""
        if not is_complete(self.folder):
            return None
        return json.loads((self.folder / "best.json").read_text())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.steps = evaluation_steps(state.max_steps, self.evaluations)
        if state.global_step == 0:
            shutil.rmtree(self.folder, ignore_errors=True)  # left by a run that never reached a checkpoint
            self._validate(0)
        else:
            logged = self.log.of(self.stage)
            raised = [str(row["alarm"]) for row in logged if "alarm" in row]
            self.alarms = {sign_of(sentence): sentence for sentence in raised}
            rows = [cast(Validation, row) for row in logged if "validation" in row]
            self.validations = [
                Validation(step=row["step"], validation=row["validation"])
                for row in rows
                if row["step"] <= state.global_step
            ]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step not in self.steps:
            return
        row = self._validate(state.global_step)
        best = self.best()
        # A best from a later step was left by a run that was killed and is now being repeated.
        if best is None or best["step"] > state.global_step or rank(row["validation"]) > rank(best["validation"]):
            self._keep(row)
        elif self.patience and self._since_best(best["step"]) >= self.patience:
            self.warn(f"stopped at step {state.global_step}: the best validation was at step {best['step']}")
            control.should_training_stop = True
            control.should_save = False  # resumed from here, training would go on

    def _validate(self, step: int) -> Validation:
        row = Validation(step=step, validation=self.validate())
        self.log.append({"stage": self.stage, **row})
        self.validations = [r for r in self.validations if r["step"] < step] + [row]
        signs = self._signs()
        for sign, sentence in signs.items():
            if sign not in self.alarms:
                self.warn(sentence)
                self.log.append({"stage": self.stage, "step": step, "alarm": sentence})
        self.alarms |= signs
        return row

    def _signs(self, kept: Figures | None = None) -> dict[str, str]:
        return alarms([r["validation"] for r in self.validations], kept, drifts=self.watched)

    def _since_best(self, step: int) -> int:
        return sum(r["step"] > step for r in self.validations)

    def _keep(self, best: Validation) -> None:
        with atomic_dir(self.folder) as staging:
            weights = {n: p.detach().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
            save_file(weights, staging / WEIGHTS)
            (staging / "best.json").write_text(json.dumps(best))

    def finish(self, keep: Literal["best", "last"]) -> Validation | None:
        """The validation of the weights that are kept; the best ones are put back into the model.

        From then on `alarms` are about them alone, and `withdrawn` are those that other weights raised.
        """
        kept = self.restore() if keep == "best" else self.validations[-1] if self.validations else None
        if kept is not None:
            raised = self.alarms
            self.alarms = self._signs(kept["validation"])
            self.withdrawn = {sign: sentence for sign, sentence in raised.items() if sign not in self.alarms}
            for sign in self.withdrawn:
                log.info(
                    "%s: the weights of step %d, which are kept, show nothing of: %s", self.stage, kept["step"], sign
                )
        return kept

    def restore(self) -> Validation:
        """Put the best weights back into the model; returns their validation.

        Raises:
            RunDirError: the stored weights are missing or damaged.
        """
        training = self.folder.parent / self.folder.name.removesuffix("-best")
        verify_dir(self.folder, f"delete {training} too: plad run CONFIG trains from the beginning")
        weights = load_file(self.folder / WEIGHTS)
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if weights.keys() != trained.keys():
            raise RunDirError(
                "the best weights belong to other parameters than those trained now",
                where=str(self.folder),
                fix=f"plad run CONFIG --clean {self.stage.partition('/')[0]} trains from the beginning",
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(weights[name])
        best = self.best()
        assert best is not None
        return best
