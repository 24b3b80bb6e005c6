"""One training run: from a policy and its groups to trained weights, resumable at any moment."""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from pydantic import JsonValue
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from plad.config.models import LoraSection, TrainSettings
from plad.config.objectives import ObjectiveSection
from plad.distillers.logits.compare import LiveTeacher, Teacher
from plad.distillers.samples.rollouts import TextSource
from plad.errors import PolicyError, TrainingError
from plad.policy.backend import no_progress_bars
from plad.policy.load import Policy, attach, freeze_embeddings
from plad.progress import track
from plad.rundir.fingerprint import as_json, fingerprint
from plad.rundir.training_log import TrainingLog
from plad.scoring.layout import Group
from plad.scoring.score import Route
from plad.train.checkpoints import latest_checkpoint, trained_with
from plad.train.loss import loss_of
from plad.train.memory import PeakMemory
from plad.train.trainer import GroupTrainer

log = logging.getLogger("plad")

GPU_MAX_TOKENS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What a policy is trained on, and how.

    Attributes:
        stage: name in the log's rows.
        groups: one completion each for `sft`, (chosen, rejected...) for the others.
        route: how the policy scores groups, as `checked_route` found it.
        folder: where checkpoints go; training resumes from the newest one there.
        depends: what else the result depends on (weights, adapter, data): a checkpoint is resumed only under the same.
        steps: how many to take. Default: what `settings.epochs` passes over the groups make.
        teacher: predicts the same tokens, for objectives on logits.
        texts: says what each step trains on; default: its groups themselves.
    """

    stage: str
    groups: Sequence[Group]
    settings: TrainSettings
    objective: ObjectiveSection
    route: Route
    folder: Path
    log: TrainingLog
    seed: int
    depends: Mapping[str, object] = field(default_factory=dict[str, object])
    steps: int | None = None
    teacher: Teacher | None = None
    texts: TextSource | None = None
    callbacks: Sequence[TrainerCallback] = ()

    def shaping(self) -> dict[str, JsonValue]:
        """What a checkpoint depends on beside the weights that training started from."""
        groups = [[g.id, g.prompt, g.completions, g.context, g.preferences, g.values] for g in self.groups]
        return as_json(
            {
                **self.settings.shaping(apart=("lora", "validation")),
                "objective": self.objective.model_dump(mode="json"),
                "steps": self.steps,
                "groups": fingerprint(groups),
                **self.depends,
                "seed": self.seed,
            }
        )


class TrainingCounts(TypedDict):
    """What a training run counted.

    Attributes:
        seconds: validation included.
        train_seconds: without it, over all resumptions.
        peak_memory: bytes of the process or the GPUs in a step, over all resumptions.
        samples: what was sampled.
    """

    steps: int
    seconds: float
    train_seconds: float
    peak_memory: int
    route: Route
    samples: NotRequired[dict[str, int]]


class _Recorder(TrainerCallback):
    """Puts rows of metrics into the log, and shows the steps with their rate and the time left."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self._open = ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.bar = self._open.enter_context(track(self.job.stage, state.max_steps, "steps"))
        self.bar.skip(state.global_step)

    def record(self, row: Mapping[str, object]) -> None:
        """Record a row; one with tokens is of a step taken."""
        self.job.log.append({"stage": self.job.stage, **row})
        if isinstance(tokens := row.get("tokens"), int):
            self.bar.advance(1, tokens=tokens)

    def close(self) -> None:
        """Take the bar down, also after an error."""
        self._open.close()


def trainable(policy: Policy, lora: LoraSection | None, settings: TrainSettings, seed: int) -> Policy:
    """The policy with a fresh adapter, drawn from the run's seed, or with the weights to train unfrozen."""
    if policy.dtype is torch.float16:
        raise PolicyError(
            "float16 weights can't be trained: small gradients vanish in them",
            where="dtype",
            fix="dtype: bfloat16\nor dtype: float32",
        )
    if lora is not None:
        set_seed(seed)
        return attach(policy, lora)
    if settings.freeze_embeddings:
        freeze_embeddings(policy)
    return policy


def planned_steps(settings: TrainSettings, rows: int) -> int:
    """Steps that the passes over `rows` groups make."""
    a_pass = math.ceil(math.ceil(rows / settings.batch_size) / settings.gradient_accumulation_steps)
    return math.ceil(a_pass * settings.epochs)


def _arguments(job: TrainingJob, *, bf16: bool, on_cpu: bool) -> TrainingArguments:
    settings = job.settings
    steps = planned_steps(settings, len(job.groups)) if job.steps is None else job.steps
    arguments = TrainingArguments(
        output_dir=str(job.folder),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        max_steps=-1 if job.steps is None else job.steps,
        warmup_steps=int(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=bf16,
        use_cpu=on_cpu,
        seed=job.seed,
        data_seed=job.seed,
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
    _ = arguments.device  # finds out how many GPUs there are
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]  # packed rows can't be scattered
    return arguments


def _resume(job: TrainingJob, depends: Mapping[str, JsonValue]) -> Path | None:
    """The checkpoint to resume from; rows of steps that will be taken again are dropped from the log.

    Raises:
        TrainingError: it was trained with other settings.
    """
    checkpoint = latest_checkpoint(job.folder)
    step = -1
    if checkpoint is not None:
        step, before = int(checkpoint.name.rpartition("-")[2]), trained_with(checkpoint)
        changed = [k for k in sorted({*before, *depends}) if before.get(k) != depends.get(k)]
        if changed:
            values = ", ".join(f"{k} {before.get(k)} -> {depends.get(k)}" for k in changed)
            raise TrainingError(
                f"the checkpoint was trained with other settings: {values}",
                where=str(checkpoint),
                fix="put the setting back\n"
                f"or plad run CONFIG --clean {job.stage.partition('/')[0]} trains from the beginning",
            )
        log.info("%s: resuming from step %d", job.stage, step)
    job.log.keep(lambda stage, of_step: stage != job.stage or of_step <= step)
    return checkpoint


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


def train_policy(policy: Policy, job: TrainingJob) -> TrainingCounts:
    """Train `policy` in place.

    Raises:
        DivergedError: the loss or the gradient is not finite.
        TrainingError: a checkpoint is damaged, or of other settings.
    """
    on_cpu = policy.device.type == "cpu"
    bf16 = _train_in_float32(policy)
    depends = job.shaping()
    resume = _resume(job, depends)
    set_seed(job.seed)
    recorder = _Recorder(job)
    trainer = GroupTrainer(
        policy.model,
        _arguments(job, bf16=bf16, on_cpu=on_cpu),
        list(job.groups),
        objective=loss_of(job.objective, policy.model, job.teacher),
        route=job.route,
        max_tokens=job.settings.max_tokens or (None if on_cpu else GPU_MAX_TOKENS),
        settings=depends,
        emit=recorder.record,
        callbacks=[recorder, *job.callbacks],
        texts=job.texts,
        dropout=job.objective.needs.dropout,
        meter=PeakMemory([policy.device, *_device_of(job.teacher)]),
    )
    if resume:
        trainer.go_on(resume)
    with closing(recorder), no_progress_bars():
        result = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    policy.model.eval()
    torch.nn.Module.to(policy.model, policy.dtype)
    counts = TrainingCounts(
        steps=trainer.state.global_step,
        seconds=round(result.metrics["train_runtime"], 1),
        train_seconds=round(trainer.seconds, 1),
        peak_memory=trainer.meter.largest,
        route=job.route,
    )
    if job.texts is not None and (samples := job.texts.counts()):
        counts["samples"] = samples
    return counts
