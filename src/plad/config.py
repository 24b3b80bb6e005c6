"""The whole vocabulary of a run: one YAML file, every field with unit, default and the paper's value.

Unknown keys are refused, numbers must be finite, and nothing here imports code named in a file.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Role = Literal["teacher", "student"]
ROLES: tuple[Role, ...] = ("teacher", "student")


class Section(BaseModel):
    """Base of all sections: frozen, closed, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class RunSection(Section):
    dir: Path = Field(description="Directory of this run; relative to the working directory.")
    seed: int = Field(default=0, ge=0, description="Seeds the split, sampling, data order, dropout and bootstrap.")


class Columns(Section):
    """Names of the columns in the data files."""

    id: str = Field(default="id", description="Optional id column; without it ids come from the prompt's content.")
    prompt: str = Field(default="prompt", description="Prompt column: text, or a list of {role, content} messages.")
    reference: str | None = Field(
        default=None,
        description="Target column: text or a list of texts. Default: the first of references, reference, completion.",
    )


class DataSection(Section):
    train: str = Field(
        description="JSONL (also .gz), parquet, or hub name `owner/name:split`; split into D0 and D; needs references."
    )
    validation: str | None = Field(default=None, description="Rows to choose checkpoints on; needs references.")
    test: str = Field(description="Rows to evaluate on; needs references.")
    columns: Columns = Columns()
    sft_share: Share = Field(default=0.5, description="Share of train used for fine-tuning (D0). Paper: 0.5.")
    limit: PositiveInt | None = Field(default=None, description="Use only the first N rows of every file.")


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


class TransformersEngine(Section):
    type: Literal["transformers"] = "transformers"


class PretrainedInit(Section):
    type: Literal["pretrained"] = "pretrained"


class PruneInit(Section):
    type: Literal["prune"] = "prune"
    layers: PositiveInt = Field(description="Layers kept of `student.model`; those of least influence are dropped.")
    prompts: PositiveInt = Field(default=32, description="Task prompts on which influence is measured.")


class ModelSection(Section):
    """What both policies share."""

    model: str = Field(description="Folder, hub name, or .gguf file.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU that has it, else float32."
    )
    prompt: PromptSection = PromptSection()
    lora: LoraSection | None = Field(default=LoraSection(), description="Adapter to train; null trains every weight.")


class TeacherSection(ModelSection):
    engine: TransformersEngine = TransformersEngine()
    sft: bool = Field(default=True, description="Fine-tune the teacher on D0 (Algorithm 1, step 1).")


class StudentSection(ModelSection):
    init: Annotated[PretrainedInit | PruneInit, Field(discriminator="type")] = PretrainedInit()


class TrainSettings(Section):
    """One training run."""

    epochs: float = Field(default=1.0, gt=0, description="Passes over the data. Paper: 1.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the linear schedule. Paper: 1e-4.")
    batch_size: PositiveInt = Field(default=8, description="Prompts a step. Paper: 8.")
    gradient_accumulation_steps: PositiveInt = Field(default=1, description="Batches added up before a step.")
    max_tokens: PositiveInt | None = Field(
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
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations in the backward pass.")
    freeze_embeddings: bool = Field(default=False, description="Keep input embeddings (and a head tied to them) fixed.")
    lora: LoraSection | Literal["inherit"] | None = Field(
        default="inherit", description="Adapter of this training run; inherit: the policy's own `lora`."
    )
    checkpoint_steps: PositiveInt = Field(default=50, description="Steps between resumable checkpoints.")

    def relevant(self) -> dict[str, Any]:
        """The settings that shape what is learnt; the others bound memory or pace the checkpoints."""
        return self.model_dump(
            mode="json", exclude={"max_tokens", "checkpoint_steps", "gradient_checkpointing", "lora"}
        )


class SftOverride(Section):
    """Fields of `sft` that differ for one policy."""

    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    batch_size: PositiveInt | None = None
    freeze_embeddings: bool | None = None


class SftSection(TrainSettings):
    teacher: SftOverride = SftOverride()
    student: SftOverride = SftOverride()

    def settings(self, role: Role) -> TrainSettings:
        """The settings of one policy's fine-tuning: the section with that policy's overrides."""
        override: SftOverride = getattr(self, role)
        base = {k: v for k, v in self if k not in ("teacher", "student")}
        return TrainSettings(**{**base, **override.model_dump(exclude_none=True)})


class GenerateSection(Section):
    temperature: float = Field(
        default=0.7, ge=0, description="Softmax temperature tau of Eq. 1; 0 is greedy. Paper: 0.7."
    )
    max_new_tokens: PositiveInt = Field(default=64, description="Most tokens of an answer, end of sequence included.")
    samples: PositiveInt = Field(default=1, description="Teacher answers a prompt.")
    student_samples: PositiveInt | None = Field(
        default=None, description="Student answers a prompt. Default: `samples`."
    )
    slots: PositiveInt = Field(default=8, description="Answers sampled at once; bounds the cache.")


class DropRules(Section):
    """Pairs that teach nothing, or the wrong thing."""

    identical: bool = Field(default=True, description="Drop pairs whose two texts are the same.")
    empty: bool = Field(default=True, description="Drop pairs with an empty text.")
    truncated: Literal["both", "teacher"] = Field(
        default="both",
        description="Drop pairs in which either answer was cut off, or only those in which the teacher's was.",
    )


class PairsSection(Section):
    drop: DropRules = DropRules()


class RankObjective(Section):
    """Ranking calibration, Eq. 4, with an optional cross-entropy term."""

    type: Literal["rank"] = "rank"
    beta: float = Field(
        default=1.0, ge=0, description="Margin in nats (of the whole text for sum, of a token for mean). Paper: 1.0."
    )
    length_normalization: Literal["sum", "mean"] = Field(
        default="mean", description="log P of a text: the sum over its tokens, or their mean."
    )
    sft_weight: float = Field(
        default=0.0, ge=0, description="Weight of the mean token cross-entropy of the chosen text; 0 is Eq. 4 alone."
    )


class SftObjective(Section):
    """Cross-entropy on the teacher's answers: SeqKD."""

    type: Literal["sft"] = "sft"


class ValidationSection(Section):
    """Choosing the checkpoint while distilling."""

    evaluations: int = Field(default=4, ge=0, description="Evenly spaced validations; 0 turns them off.")
    rows: PositiveInt = Field(default=64, description="Validation prompts sampled each time.")
    keep: Literal["best", "last"] = Field(
        default="best", description="best: the checkpoint of best validation win rate."
    )


class DistillSection(TrainSettings):
    objective: Annotated[RankObjective | SftObjective, Field(discriminator="type")] = RankObjective()
    validation: ValidationSection = ValidationSection()


class ReferenceJudge(Section):
    """Scores an answer by ROUGE-L F1 against the references other than the target."""

    type: Literal["reference"] = "reference"


class RewardJudge(Section):
    """Scores an answer with a reward model: any sequence classifier with one output."""

    type: Literal["reward"] = "reward"
    model: str = Field(description="Folder or hub name.")
    revision: str | None = None
    input: Literal["pair", "chat"] = Field(
        default="pair", description="pair: prompt and answer as a text pair; chat: through the chat template."
    )
    batch_size: PositiveInt = 8
    max_length: PositiveInt | None = Field(
        default=None, description="Default: the model's context; truncation is counted."
    )


class EvaluateSection(Section):
    judges: tuple[Annotated[ReferenceJudge | RewardJudge, Field(discriminator="type")], ...] = (ReferenceJudge(),)
    rouge: bool = Field(default=True, description="ROUGE-1, ROUGE-2 and ROUGE-L F1 against the best reference.")
    stemmer: bool = Field(default=False, description="Porter-stem English words before ROUGE.")
    temperature: float = Field(default=0.0, ge=0, description="Temperature of the evaluated answers; 0 is greedy.")
    max_new_tokens: PositiveInt | None = Field(default=None, description="Default: `generate.max_new_tokens`.")
    limit: PositiveInt | None = Field(default=None, description="Evaluate only the first N test rows.")
    bootstrap: PositiveInt = Field(default=10_000, description="Resamples of the paired bootstrap over prompts.")


class Config(Section):
    """A run."""

    run: RunSection
    data: DataSection
    teacher: TeacherSection
    student: StudentSection
    sft: SftSection = SftSection()
    generate: GenerateSection = GenerateSection()
    pairs: PairsSection = PairsSection()
    distill: DistillSection = DistillSection()
    evaluate: EvaluateSection = EvaluateSection()

    @model_validator(mode="after")
    def _answers_fit_together(self) -> "Config":
        if self.generate.temperature == 0 and max(self.generate.samples, self.student_samples) > 1:
            raise ValueError("generate.temperature 0 gives every sample of a prompt the same text; use 1 sample")
        return self

    @property
    def student_samples(self) -> int:
        """Student answers a prompt."""
        return self.generate.student_samples or self.generate.samples

    @property
    def evaluation_max_new_tokens(self) -> int:
        """Most tokens of an evaluated answer."""
        return self.evaluate.max_new_tokens or self.generate.max_new_tokens

    def lora_for(self, settings: TrainSettings, policy: ModelSection) -> LoraSection | None:
        """The adapter that `settings` trains on `policy`."""
        return policy.lora if settings.lora == "inherit" else settings.lora
