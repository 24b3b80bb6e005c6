"""The trainer: groups in, one objective, gradients that don't depend on how a batch is split."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from plad.distillers.logits.losses import GroupLoss
from plad.distillers.samples.rollouts import TextSource
from plad.errors import DivergedError
from plad.scoring.attention import plan_attention
from plad.scoring.layout import Group, pack
from plad.scoring.score import Route, score
from plad.train.checkpoints import PROGRESS, WholeCheckpoints
from plad.train.memory import PeakMemory

MAX_SKIPPED = 3  # non-finite steps in a row before training stops


def collate(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """A batch is its groups; rows are packed when they are scored."""
    return {"groups": list(groups)}


class GroupTrainer(WholeCheckpoints, Trainer):
    """transformers' Trainer over groups of one prompt and its completions.

    The loss of a step is sum(losses) / sum(weights) over all groups of the step, whatever the batch
    size, the accumulation, or the rows into which `max_tokens` splits a batch.

    Args:
        objective: maps scores to losses.
        route: how the policy scores groups.
        max_tokens: most tokens in one forward pass; None for one group a pass.
        settings: what the run depends on, stored in each checkpoint.
        emit: receives one metrics row a step.
        texts: says what each step trains on, from the groups that the data gives it; None for these themselves.
        dropout: whether dropout is on in the loss.
        meter: of the steps' memory.

    Attributes:
        seconds: spent on steps so far, sampling included and validation not, over all resumptions.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: Sequence[Group],
        *,
        objective: GroupLoss,
        route: Route,
        max_tokens: int | None,
        settings: Mapping[str, object],
        emit: Callable[[Mapping[str, object]], None],
        callbacks: Sequence[TrainerCallback] = (),
        texts: TextSource | None = None,
        dropout: bool = True,
        meter: PeakMemory,
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # transformers has no types here
            model=model,
            args=args,
            train_dataset=train_dataset,  # type: ignore[arg-type]
            data_collator=collate,  # type: ignore[arg-type]
            callbacks=[_EmitMetrics(self), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self.objective, self.route, self.max_tokens = objective, route, max_tokens
        self.settings, self.emit, self.texts = settings, emit, texts
        self.dropout, self.meter = dropout, meter
        self.seconds = 0.0
        self._skipped = 0
        self._reset_step()

    def _reset_step(self) -> None:
        self._scored: list[tuple[list[str], Tensor]] = []
        self._metrics: dict[str, list[Tensor]] = {}
        self._tokens = 0
        self._loss: Tensor | float = 0.0
        self._grad_norm = self._learning_rate = 0.0
        self._started: float | None = None

    # -- the step ---------------------------------------------------------------------------------

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator[dict[str, list[Group]]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, list[Group]]], Tensor]:
        """The batches of one step, their texts sampled where the objective wants them so, and their weight."""
        self.meter.begin()
        self._started = time.perf_counter()
        batches = list(islice(epoch_iterator, num_batches))
        if self.texts is not None and batches:
            given = [g for batch in batches for g in batch["groups"]]
            groups = self.texts.texts(self.state.global_step, given)
            n, parts = len(groups), len(batches)  # as many parts as batches: a step ends at the last one's gradient
            batches = [collate(groups[i * n // parts : (i + 1) * n // parts]) for i in range(parts)]
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(  # type: ignore[override]
        self, batch_samples: list[dict[str, list[Group]]], device: torch.device
    ) -> Tensor:
        weight = sum(self.objective.weight(g) for batch in batch_samples for g in batch["groups"])
        return torch.tensor(float(weight), device=device)

    def training_step(  # type: ignore[override]
        self, model: nn.Module, inputs: dict[str, list[Group]], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one batch, row by row; rows in which no pair is active cost no backward."""
        model.train()
        if not self.dropout:
            _without_dropout(model)
        assert num_items_in_batch is not None
        scale = 1.0 / float(num_items_in_batch)
        rows = pack(inputs["groups"], self.max_tokens)
        # Held for the whole step: gradient checkpointing calls attention again in the backward pass.
        with plan_attention(model) if self.route is Route.SEGMENTS else nullcontext():
            losses = [self._row_step(model, row, scale) for row in rows]
        total = torch.stack(losses).sum()
        self._loss = self._loss + total
        return total

    def _row_step(self, model: nn.Module, row: Sequence[Group], scale: float) -> Tensor:
        with self.compute_loss_context_manager():
            wanted = {"states": self.objective.states, "logits": self.objective.logits}
            out = self.objective(score(model, row, route=self.route, **wanted))
            loss = out.losses.sum() * scale
        if bool(out.active.any()):
            self.accelerator.backward(loss)  # pyright: ignore[reportUnknownMemberType]  # accelerate has no types
        self._record(row, out.losses.detach(), out.metrics)
        return loss.detach()

    def _record(self, row: Sequence[Group], losses: Tensor, metrics: Mapping[str, Tensor]) -> None:
        self._scored.append(([g.id for g in row], losses))
        self._tokens += sum(len(g.prompt) + sum(map(len, g.completions)) for g in row)
        for name, values in metrics.items():
            self._metrics.setdefault(name, []).append(values.detach())

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:  # type: ignore[override]
        parameters = [p for p in model.parameters() if p.requires_grad]
        for p in parameters:
            if p.grad is None:  # no pair was active: the step is taken as if its zero gradient had been computed
                p.grad = torch.zeros_like(p)
        clip = self.accelerator.clip_grad_norm_  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # accelerate has no types
        norm = cast(Tensor, clip(parameters, self.args.max_grad_norm))
        self._grad_norm, self._learning_rate = float(norm), self._get_learning_rate()
        finite = torch.isfinite(norm) and all(bool(torch.isfinite(losses).all()) for _, losses in self._scored)
        if finite:
            self._skipped = 0
        else:
            self._skip(model)
        return norm

    def _skip(self, model: nn.Module) -> None:
        """Drop the gradient of a non-finite step; stop after several in a row."""
        bad = [
            i for ids, losses in self._scored for i, v in zip(ids, losses, strict=True) if not math.isfinite(float(v))
        ]
        rows = bad or [i for ids, _ in self._scored for i in ids]
        kind = "loss" if bad else "gradient"
        self._skipped += 1
        step = self.state.global_step + 1
        self.emit({"step": step, "skipped": f"non-finite {kind}", "rows": rows})
        model.zero_grad(set_to_none=True)  # AdamW leaves parameters without a gradient untouched
        if self._skipped >= MAX_SKIPPED:
            raise DivergedError(
                f"non-finite {kind} in {self._skipped} steps in a row, last in rows {', '.join(rows[:8])}",
                where=f"step {step}",
                fix="lower learning_rate or max_grad_norm\nlook at those rows\n"
                "the last good checkpoint is kept; the same command resumes from it",
            )

    def step_metrics(self) -> dict[str, float | None]:
        """Metrics of the step just taken; resets the sums."""
        seconds = time.perf_counter() - (self._started or 0.0)
        self.seconds += seconds
        self.meter.end()
        row: dict[str, float] = {
            "step": self.state.global_step,
            "epoch": round(self.state.epoch or 0.0, 4),
            "loss": float(self._loss),
            "learning_rate": self._learning_rate,
            "grad_norm": self._grad_norm,
            "tokens": self._tokens,
            "tokens_per_s": round(self._tokens / seconds, 1),
        }
        row |= {name: float(torch.cat(values).float().nanmean()) for name, values in self._metrics.items()}
        row |= self.texts.metrics() if self.texts is not None else {}
        self._reset_step()
        return {name: value if math.isfinite(value) else None for name, value in row.items()}

    def floating_point_ops(self, inputs: dict[str, list[Group]]) -> int:  # type: ignore[override]
        """Not estimated: transformers counts padded inputs, and there are none here."""
        return 0

    # -- checkpoints ------------------------------------------------------------------------------

    def go_on(self, checkpoint: Path) -> None:
        """Take up time spent, the memory it took and texts sampled from a checkpoint; the rest is `train`'s."""
        progress = json.loads((checkpoint / PROGRESS).read_text())
        self.seconds = progress["seconds"]
        self.meter.largest = progress.get("peak_memory", 0)
        if self.texts is not None:
            self.texts.restore(progress["texts"])

    def progress(self) -> dict[str, object]:
        """Time and memory spent, and what the texts go on from."""
        texts = self.texts.state() if self.texts is not None else {}
        return {"seconds": self.seconds, "peak_memory": self.meter.largest, "texts": texts}


def _without_dropout(model: nn.Module) -> None:
    """Evaluation mode for all but those modules that would recompute no activations in it."""
    for module in model.modules():
        if not getattr(module, "gradient_checkpointing", False):
            module.training = False


class _EmitMetrics(TrainerCallback):
    """Passes each step's metrics on."""

    def __init__(self, trainer: GroupTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.trainer.emit(self.trainer.step_metrics())
        if state.global_step >= state.max_steps:
            control.should_save = False  # the caller saves the finished policy itself
