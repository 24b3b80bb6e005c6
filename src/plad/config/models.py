"""Teacher and student: the model, its prompt format, its adapter, and how it is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from plad.config.base import PACES, PositiveInt, Role, Section
from plad.config.engines import EngineSection
from plad.config.objectives import AnyObjective, objective_of


class PromptSection(Section):
    """How a prompt becomes tokens."""

    format: Literal["auto", "chat", "plain"] = Field(
        default="auto", description="auto: the tokenizer's chat template if it has one, else plain text."
    )
    template: str | None = Field(
        default=None, description="Plain text around the prompt, holding `{prompt}` once; overrides `format`."
    )
    separator: str = Field(
        default="",
        description="Text between a plain prompt and its answer, such as a space; tokenised with the answer.",
    )
    system: str | None = Field(default=None, description="System message put before a plain prompt in chat format.")

    @model_validator(mode="after")
    def _template_names_prompt(self) -> "PromptSection":
        if self.template is not None and self.template.count("{prompt}") != 1:
            raise ValueError("template must hold {prompt} exactly once")
        return self


class LoraSection(Section):
    r: PositiveInt = Field(default=8, description="Rank. Paper: 8.")
    alpha: float = Field(default=32, gt=0, description="Scale. Paper: 32.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout on the adapter's input. Paper: 0.1.")
    target_modules: tuple[str, ...] | None = Field(
        default=None, description="Module names to adapt. Default: every linear layer but the output head."
    )


class PretrainedInit(Section):
    type: Literal["pretrained"] = "pretrained"


class PruneInit(Section):
    type: Literal["prune"] = "prune"
    layers: PositiveInt = Field(description="Layers kept of `student.model`; those of least influence are dropped.")
    prompts: PositiveInt = Field(default=32, description="Task prompts on which influence is measured.")


class ModelSection(Section):
    """What both policies share."""

    model: str = Field(description="Folder, hub name, or .gguf file; a provider's name of it behind an engine.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU that has it, else float32."
    )
    prompt: PromptSection = PromptSection()
    lora: LoraSection | None = Field(default=LoraSection(), description="Adapter to train; null trains every weight.")


def _in_this_process() -> EngineSection:
    return EngineSection.model_validate({"type": "transformers"})


class TeacherSection(ModelSection):
    engine: EngineSection = Field(default_factory=_in_this_process, description="Who answers for the teacher.")
    sft: bool = Field(
        default=True,
        description="Fine-tune the teacher on D0 (Algorithm 1, step 1). Default: where its weights are here.",
    )

    @model_validator(mode="after")
    def _without_weights_nothing_is_trained(self) -> "TeacherSection":
        if self.local:
            return self
        for name, value in (("sft", False), ("lora", None)):
            if name not in self.model_fields_set:
                object.__setattr__(self, name, value)  # the default where there are no weights
        kind = self.engine.tag()
        if self.sft:
            raise ValueError(f"a teacher behind engine {kind} has no weights here to fine-tune: sft must be false")
        if self.lora is not None:
            raise ValueError(f"a teacher behind engine {kind} isn't trained: remove lora")
        if self.dtype != "auto":
            raise ValueError(f"a teacher behind engine {kind} isn't loaded: remove dtype")
        idle = sorted(self.prompt.model_fields_set - self.engine.prompt_fields)
        if idle:
            raise ValueError(f"prompt.{idle[0]} has no effect on a teacher behind engine {kind}: remove it")
        return self

    @property
    def local(self) -> bool:
        """Whether the teacher's weights are loaded in this process."""
        return self.engine.local


class StudentSection(ModelSection):
    init: Annotated[PretrainedInit | PruneInit, Field(discriminator="type")] = PretrainedInit()


class Optimization(Section):
    """How weights are updated, whatever the loss."""

    epochs: float = Field(default=1.0, gt=0, description="Passes over the data. Paper: 1.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the linear schedule. Paper: 1e-4.")
    batch_size: PositiveInt = Field(default=8, description="Prompts a step. Paper: 8.")
    gradient_accumulation_steps: PositiveInt = Field(default=1, description="Batches added up before a step.")
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
    checkpoint_steps: Annotated[PositiveInt, PACES] = Field(
        default=50, description="Steps between resumable checkpoints."
    )


class TrainSettings(Optimization):
    """One training run."""

    max_tokens: Annotated[PositiveInt | None, PACES] = Field(
        default=None,
        description="Most tokens in one forward pass: bounds memory, never changes the result (dropout draws apart). "
        "Default: one group a pass on CPU, 16384 tokens on a GPU.",
    )
    max_length: PositiveInt | None = Field(
        default=None,
        description="Rows whose prompt + completion are longer are dropped and counted. Default: the context.",
    )
    freeze_embeddings: bool = Field(default=False, description="Keep input embeddings (and a head tied to them) fixed.")
    lora: LoraSection | Literal["inherit"] | None = Field(
        default="inherit", description="Adapter of this training run; inherit: the policy's own `lora`."
    )


class ValidationSection(Section):
    """Choosing the checkpoint while training."""

    evaluations: int = Field(default=4, ge=0, description="Evenly spaced validations; 0 turns them off.")
    rows: PositiveInt = Field(default=64, description="Validation prompts sampled each time.")
    keep: Literal["best", "last"] = Field(
        default="best",
        description="best: the checkpoint of best validation win rate; of best ROUGE-L where no judge can compare with "
        "the target.",
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
    objective: AnyObjective = Field(default_factory=objective_of("rank"))
    validation: ValidationSection = ValidationSection()
    rounds: PositiveInt = Field(
        default=1,
        description="Most rounds. Before each but the first the student is sampled again and meets the same answers of "
        "the teacher; they end where the teacher is no longer favoured or the validation win rate no longer rises.",
    )
