"""One training run: from a policy and its groups to trained weights, resumable at any moment."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import set_seed

from plad.config.models import TrainSettings
from plad.config.objectives import ObjectiveSection
from plad.distillers.logits.compare import LiveTeacher, Teacher
from plad.distillers.samples.rollouts import TextSource
from plad.errors import TrainingError
from plad.policy.backend import no_progress_bars
from plad.policy.load import Policy
from plad.progress import track
from plad.rundir.directory import fingerprint, keep_metrics
from plad.scoring.layout import Group
from plad.scoring.score import Route
from plad.train.checkpoints import latest_checkpoint, trained_with
from plad.train.loss import loss_of
from plad.train.memory import PeakMemory
from plad.train.trainer import GroupTrainer

log = logging.getLogger("plad")

GPU_MAX_TOKENS = 16_384


class _Progress(TrainerCallback):
    """A progress bar with rate and time left."""

    def __init__(self, label: str, latest: Mapping[str, Any]) -> None:
        self.label, self.latest = label, latest
        self._open = ExitStack()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar = self._open.enter_context(track(self.label, state.max_steps, "steps"))
        self.bar.skip(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.advance(1, tokens=self.latest.get("tokens", 0))

    def close(self) -> None:
        """Take the bar down, also after an error."""
        self._open.close()


def planned_steps(settings: TrainSettings, rows: int) -> int:
    """Steps that the passes over `rows` groups make."""
    a_pass = math.ceil(math.ceil(rows / settings.batch_size) / settings.gradient_accumulation_steps)
    return math.ceil(a_pass * settings.epochs)


def _arguments(
    settings: TrainSettings, folder: Path, *, rows: int, steps: int | None, seed: int, bf16: bool, on_cpu: bool
) -> TrainingArguments:
    planned = planned_steps(settings, rows) if steps is None else steps
    made = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        max_steps=-1 if steps is None else steps,
        warmup_steps=int(settings.warmup_ratio * planned),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=bf16,
        use_cpu=on_cpu,
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        average_tokens_across_devices=False,
    )
    _ = made.device  # settles how many GPUs there are
    made._n_gpu = min(made.n_gpu, 1)  # packed rows can't be scattered over several
    return made


def _resume_point(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The checkpoint to resume from, if it was trained with these very settings."""
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        return None
    before, now = trained_with(checkpoint), json.loads(json.dumps(dict(settings), default=str))
    if before != now:
        changed = ", ".join(
            f"{k} {before.get(k)} -> {now.get(k)}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)
        )
        raise TrainingError(
            f"the checkpoint was trained with other settings: {changed}",
            where=str(checkpoint),
            fix="put the setting back\nor --clean the stage to train from the beginning",
        )
    return checkpoint


def _resume(folder: Path, depends: Mapping[str, Any], metrics_file: Path, stage: str) -> Path | None:
    """The checkpoint to resume from; metric rows of steps that will be taken again are dropped."""
    checkpoint = _resume_point(folder, depends)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    keep_metrics(metrics_file, lambda row: row["stage"] != stage or (checkpoint is not None and row["step"] <= step))
    if checkpoint:
        log.info("%s: resuming from step %d", stage, step)
    return checkpoint


def _shaping(
    settings: TrainSettings, objective: ObjectiveSection, groups: Sequence[Group], steps: int | None
) -> dict[str, Any]:
    """What a checkpoint depends on beside the weights that training started from."""
    return {
        **settings.shaping(apart=("lora", "validation")),
        "objective": objective.model_dump(mode="json"),
        "steps": steps,
        "groups": fingerprint([[g.id, g.prompt, g.completions, g.context, g.preferences, g.values] for g in groups]),
    }


def _train_in_float32(policy: Policy) -> bool:
    """Whether to compute in bfloat16; trained weights and the optimizer's state are float32 either way."""
    if policy.dtype is not torch.bfloat16:
        return False
    for p in policy.model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return True


def _device_of(teacher: Teacher | None) -> list[torch.device]:
    return [next(teacher.model.parameters()).device] if isinstance(teacher, LiveTeacher) else []


def train_policy(
    policy: Policy,
    groups: Sequence[Group],
    settings: TrainSettings,
    objective: ObjectiveSection,
    *,
    route: Route,
    depends: Mapping[str, Any],
    stage: str,
    folder: Path,
    metrics_file: Path,
    emit: Callable[[dict[str, Any]], None],
    seed: int,
    callbacks: Sequence[TrainerCallback] = (),
    teacher: Teacher | None = None,
    texts: TextSource | None = None,
    steps: int | None = None,
) -> dict[str, Any]:
    """Train `policy` in place.

    Args:
        groups: one completion each for `sft`, (chosen, rejected...) for the others.
        route: how the policy scores groups, as `checked_route` found it.
        depends: what else the result depends on (weights, adapter, data): a checkpoint is resumed only under the same.
        stage: name in metrics rows.
        folder: where checkpoints go; training resumes from the newest one there.
        emit: receives each metrics row.
        teacher: predicts the same tokens, for objectives on logits.
        texts: says what each step trains on; default: its groups themselves.
        steps: how many to take. Default: what `settings.epochs` passes over the groups make.

    Returns:
        Counts: steps, seconds (validation included), train_seconds (without it, over all resumptions), peak_memory
        (bytes of the process or the GPUs in a step, over all resumptions), what was sampled.

    Raises:
        DivergedError: the loss or the gradient is not finite.
        TrainingError: a checkpoint is damaged, or of other settings.
    """
    on_cpu = policy.device.type == "cpu"
    bf16 = _train_in_float32(policy)
    depends = {**_shaping(settings, objective, groups, steps), **depends, "seed": seed}
    resume = _resume(folder, depends, metrics_file, stage)
    latest: dict[str, Any] = {}

    def record(row: dict[str, Any]) -> None:
        latest.clear()
        latest.update(row)
        emit({"stage": stage, **row})

    set_seed(seed)
    progress = _Progress(stage, latest)
    trainer = GroupTrainer(
        policy.model,
        _arguments(settings, folder, rows=len(groups), steps=steps, seed=seed, bf16=bf16, on_cpu=on_cpu),
        list(groups),
        objective=loss_of(objective, policy.model, teacher),
        route=route,
        max_tokens=settings.max_tokens or (None if on_cpu else GPU_MAX_TOKENS),
        settings=depends,
        emit=record,
        callbacks=[progress, *callbacks],
        texts=texts,
        dropout=objective.needs.dropout,
        meter=(meter := PeakMemory([policy.device, *_device_of(teacher)])),
    )
    if resume:
        trainer.go_on(resume)
    with closing(progress), no_progress_bars():
        result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    policy.model.eval()
    torch.nn.Module.to(policy.model, policy.dtype)
    return {
        "steps": trainer.state.global_step,
        "seconds": round(result.metrics["train_runtime"], 1),
        "train_seconds": round(trainer.seconds, 1),
        "peak_memory": meter.largest,
        "route": route,
        **({"samples": counts} if texts is not None and (counts := texts.counts()) else {}),
    }
