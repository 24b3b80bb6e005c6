"""A run's config: where it is kept, the rows it works on, its other sections, and what must hold between them."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from plad.config.base import PACES, PositiveInt, Role, Section, Seed, Share, WritablePath
from plad.config.engines import BudgetSection, Endpoint
from plad.config.evaluation import Baseline, EvaluateSection
from plad.config.extras import SweepSection
from plad.config.models import (
    DistillSection,
    LoraSection,
    ModelSection,
    SftSection,
    StudentSection,
    TeacherSection,
    TrainSettings,
)
from plad.config.objectives import ObjectiveSection
from plad.config.pairs import GenerateSection, PairsSection


class RunSection(Section):
    dir: Annotated[WritablePath, PACES] = Field(description="Directory of this run; relative to the working directory.")
    seed: Seed = Field(default=0, description="Seeds the split, sampling, data order, dropout and bootstrap.")


class Columns(Section):
    """Names of the columns in the data files."""

    id: str = Field(default="id", description="Optional id column; without it ids come from the prompt's content.")
    prompt: str = Field(default="prompt", description="Prompt column: text, or a list of {role, content} messages.")
    reference: str | None = Field(
        default=None,
        description="Target column: text or a list of texts. Default: the first of references, reference, completion.",
    )
    dialogue: str | None = Field(
        default=None,
        description="Column that holds a dialogue `Human: ... Assistant: ...` whose last answer is the target, as the "
        "hub's HH data has it (`chosen`); takes the place of `prompt` and `reference`.",
    )
    dialogue_prompt: Literal["text", "messages"] = Field(
        default="text",
        description="What a dialogue's prompt is: text, as it stands up to the last `Assistant:`; or messages, for the "
        "chat format.",
    )

    @model_validator(mode="after")
    def _dialogue_stands_alone(self) -> "Columns":
        others = {"prompt", "reference"} & self.model_fields_set
        if self.dialogue is not None and others:
            raise ValueError(f"dialogue holds prompt and target; leave {' and '.join(sorted(others))} out")
        return self


class DataSection(Section):
    train: str = Field(
        description="JSONL, CSV or TSV (each also .gz), parquet, or hub name `owner/name:split`; split into D0 and D; "
        "needs references. "
        "Of the hub also `owner/name/config:split`, where config may be a folder of the data set, and a slice such as "
        "`owner/name:train[:95%]`."
    )
    validation: str | None = Field(default=None, description="Rows to choose checkpoints on; needs references.")
    test: str = Field(description="Rows to evaluate on; needs references.")
    columns: Columns = Columns()
    overlap: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="Prompts that stand in two files: refuse names them; drop leaves them out of train, and of "
        "validation where they stand in test, and counts them.",
    )
    sft_share: Share = Field(default=0.5, description="Share of train used for fine-tuning (D0). Paper: 0.5.")
    limit: PositiveInt | None = Field(default=None, description="Use only the first N rows of every file.")


class Config(Section):
    """A run."""

    run: RunSection
    data: DataSection
    teacher: TeacherSection
    student: StudentSection
    sft: SftSection = SftSection()
    generate: GenerateSection = GenerateSection()
    pairs: PairsSection = PairsSection()
    distill: DistillSection = Field(default_factory=DistillSection)
    evaluate: EvaluateSection = EvaluateSection()
    budget: BudgetSection | None = Field(default=None, description="What providers may cost; null for no limit.")
    sweep: SweepSection | None = Field(default=None, description="What `plad sweep` tries; a run ignores it.")

    @model_validator(mode="after")
    def _answers_fit_together(self) -> "Config":
        if self.generate.temperature == 0 and max(self.generate.samples, self.student_samples) > 1:
            raise ValueError("generate.temperature 0 gives every sample of a prompt the same text; use 1 sample")
        return self

    @model_validator(mode="after")
    def _references_exist(self) -> "Config":
        for objective in self.objectives:
            answers = objective.needs.teacher_answers
            if self.generate.samples < answers:
                raise ValueError(
                    f"objective {objective.tag()} with reference: teacher, the default beside other methods, needs "
                    f"{answers} answers of the teacher to a prompt: set generate.samples to {answers} or more, or "
                    "reference: target, which reads human targets that other methods don't see"
                )
        return self

    @model_validator(mode="after")
    def _logits_are_here(self) -> "Config":
        wanting = [o.tag() for o in self.objectives if o.needs.logits is not None]
        if wanting and not self.teacher.local:
            raise ValueError(
                f"objective {wanting[0]} needs the teacher's logits, and engine {self.teacher.engine.tag()} gives "
                "text; PLaD (rank, margin) and SeqKD (sft) need nothing else"
            )
        if wanting and self.pairs.file is not None:
            raise ValueError(f"objective {wanting[0]} learns from texts of teacher and student: remove pairs.file")
        return self

    @property
    def objectives(self) -> tuple[ObjectiveSection, ...]:
        """All that students are trained with."""
        return (*self.distill.objective.alternatives, *(b.objective for b in self.evaluate.baselines))

    @model_validator(mode="after")
    def _validation_is_there(self) -> "Config":
        chooses = {
            f"distill.objective.type {self.distill.objective.tag()}": len(self.distill.objective.alternatives) > 1,
            f"distill.rounds {self.distill.rounds}": self.distill.rounds > 1,
        }
        missing = self.data.validation is None or not self.distill.validation.evaluations
        if missing and (names := [name for name, wanted in chooses.items() if wanted]):
            raise ValueError(
                f"{names[0]} chooses on validation: give data.validation and distill.validation.evaluations"
            )
        if self.distill.rounds > 1 and not self.evaluate.judges:
            raise ValueError(
                f"distill.rounds {self.distill.rounds} needs a judge of teacher and student: evaluate.judges"
            )
        return self

    @model_validator(mode="after")
    def _money_needs_prices(self) -> "Config":
        free = [name for name, endpoint in self.endpoints() if endpoint.price is None]
        if self.budget is not None and self.budget.usd is not None and free:
            raise ValueError(
                f"budget.usd needs {free[0]}.price: {{input: ..., output: ...}}, US dollars a million tokens"
            )
        return self

    def endpoints(self) -> Iterator[tuple[str, Endpoint]]:
        """Every server that this run asks, by its place in the config."""
        if self.teacher.engine.endpoint is not None:
            yield "teacher.engine", self.teacher.engine.endpoint
        for i, judge in enumerate(self.evaluate.judges):
            if judge.endpoint is not None:
                yield f"evaluate.judges.{i}", judge.endpoint
        scorer = self.pairs.scorer
        if scorer is not None and scorer.endpoint is not None and self.pairs.scores:
            yield "pairs.scorer", scorer.endpoint

    @property
    def student_samples(self) -> int:
        """Student answers a prompt."""
        return self.generate.student_samples or self.generate.samples

    @property
    def evaluation_max_new_tokens(self) -> int:
        """Most tokens of an evaluated answer."""
        return self.evaluate.max_new_tokens or self.generate.max_new_tokens

    @property
    def methods(self) -> tuple[Baseline, ...]:
        """The baselines that are systems of their own: not what the student itself is trained with, in one round."""
        students = self.distill.objective if self.distill.rounds == 1 else None
        return tuple(m for m in self.evaluate.baselines if m.objective != students)

    def adapters(self, role: Role) -> dict[str, LoraSection]:
        """The adapters that are trained on a policy, by their place."""
        policy: ModelSection = getattr(self, role)
        stages: dict[str, TrainSettings] = {"distill": self.distill} if role == "student" else {}
        if role == "student" or self.teacher.sft:
            stages["sft"] = self.sft.settings(role)
        places = {name: f"{role if s.lora == 'inherit' else name}.lora" for name, s in stages.items()}
        loras = {places[name]: self.lora_for(settings, policy) for name, settings in stages.items()}
        return {place: lora for place, lora in loras.items() if lora is not None}

    def lora_for(self, settings: TrainSettings, policy: ModelSection) -> LoraSection | None:
        """The adapter that `settings` trains on `policy`."""
        return policy.lora if settings.lora == "inherit" else settings.lora
