"""Training runs: fine-tuning and distillation."""

from typing import Annotated, Literal

from pydantic import Field

from plad.config.base import PACES, PositiveInt, Role, Section
from plad.config.models import LoraSection
from plad.config.objectives import Objective, RankObjective


class TrainSettings(Section):
    """One training run."""

    epochs: float = Field(default=1.0, gt=0, description="Passes over the data. Paper: 1.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the linear schedule. Paper: 1e-4.")
    batch_size: PositiveInt = Field(default=8, description="Prompts a step. Paper: 8.")
    gradient_accumulation_steps: PositiveInt = Field(default=1, description="Batches added up before a step.")
    max_tokens: Annotated[PositiveInt | None, PACES] = Field(
        default=None,
        description="Most tokens in one forward pass: bounds memory, never changes the result (dropout draws apart). "
        "Default: one group a pass on CPU, 16384 tokens on a GPU.",
    )
    max_length: PositiveInt | None = Field(
        default=None,
        description="Rows whose prompt + completion are longer are dropped and counted. Default: the context.",
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps in which the rate rises to its peak."
    )
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="Gradient norm above which the gradient is scaled down."
    )
    gradient_checkpointing: Annotated[bool, PACES] = Field(
        default=False, description="Recompute activations in the backward pass."
    )
    freeze_embeddings: bool = Field(default=False, description="Keep input embeddings (and a head tied to them) fixed.")
    lora: LoraSection | Literal["inherit"] | None = Field(
        default="inherit", description="Adapter of this training run; inherit: the policy's own `lora`."
    )
    checkpoint_steps: Annotated[PositiveInt, PACES] = Field(
        default=50, description="Steps between resumable checkpoints."
    )


class ValidationSection(Section):
    """Choosing the checkpoint while training."""

    evaluations: int = Field(default=4, ge=0, description="Evenly spaced validations; 0 turns them off.")
    rows: PositiveInt = Field(default=64, description="Validation prompts sampled each time.")
    keep: Literal["best", "last"] = Field(
        default="best", description="best: the checkpoint of best validation win rate."
    )
    patience: PositiveInt | None = Field(
        default=None, description="Training stops after so many validations in a row without a better win rate."
    )


class SftOverride(Section):
    """Fields of `sft` that differ for one policy."""

    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    batch_size: PositiveInt | None = None
    freeze_embeddings: bool | None = None


class SftSection(TrainSettings):
    validation: ValidationSection = Field(
        default=ValidationSection(evaluations=2),
        description="Choosing the teacher's checkpoint by win rate (Algorithm 1, step 1); the student goes through the "
        "whole fine-tuning.",
    )
    teacher: SftOverride = SftOverride()
    student: SftOverride = SftOverride()

    def settings(self, role: Role) -> TrainSettings:
        """The settings of one policy's fine-tuning: the section with that policy's overrides."""
        override: SftOverride = getattr(self, role)
        base = {k: v for k, v in self if k not in ("validation", "teacher", "student")}
        return TrainSettings(**{**base, **override.model_dump(exclude_none=True)})


class DistillSection(TrainSettings):
    objective: Objective = RankObjective()
    validation: ValidationSection = ValidationSection()
    rounds: PositiveInt = Field(
        default=1,
        description="Most rounds. Before each but the first the student is sampled again and meets the same answers of "
        "the teacher; they end where the teacher is no longer favoured or the validation win rate no longer rises.",
    )
