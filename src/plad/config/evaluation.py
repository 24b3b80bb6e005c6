"""What is measured on the test rows, and what the student is compared with there."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from plad.config.base import PositiveInt, Section
from plad.config.judges import JudgeSection
from plad.config.objectives import (
    ObjectiveSection,
    named_objective,
    objective_of,
)
from plad.records import SYSTEMS

SEQKD = "seqkd"


class Baseline(Section):
    """One method: an objective under a name of its own."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,40}$", description="Names its folder and its row: small letters, digits, - _ ."
    )
    objective: ObjectiveSection = Field(default_factory=objective_of("kd"), validate_default=True)

    @field_validator("objective")
    @classmethod
    def _on_the_same_texts(cls, objective: ObjectiveSection) -> ObjectiveSection:
        return objective.as_baseline()

    @model_validator(mode="after")
    def _is_no_system(self) -> "Baseline":
        if self.name in SYSTEMS or self.name.startswith("student_round_"):
            raise ValueError(f"{self.name} is what every run evaluates; give the method another name")
        return self


def _named_objective(entry: JsonValue | Baseline) -> object:
    """`kd`, `f_distill-js`, `{f_distill: {divergence: js}}` or `{type: kd, name: ...}` as a named objective."""
    if isinstance(entry, str):
        return {"name": entry, "objective": named_objective("sft" if entry == SEQKD else entry)}
    if not isinstance(entry, dict) or "objective" in entry:
        return entry
    settings = dict(entry)
    if len(settings) == 1 and not settings.keys() & {"type", "name"}:
        ((kind, inner),) = settings.items()
        settings = {**(inner if isinstance(inner, dict) else {}), "type": "sft" if kind == SEQKD else kind}
    name = settings.pop("name", None) or _default_name(settings)
    return {"name": name, "objective": settings}


def _default_name(settings: dict[str, JsonValue]) -> str:
    """The type and what was chosen in it by a word: `f_distill-js`, `rank-sum`."""
    kind = str(settings.get("type", ""))
    words = [v for k, v in settings.items() if k in ("divergence", "length_normalization", "scores", "text")]
    return "-".join([SEQKD if kind == "sft" else kind, *map(str, words)])


def _without_fine_tuned(entries: Sequence[JsonValue | Baseline]) -> object:
    """Every entry but `sft`, however it is spelt: the fine-tuned student is part of every evaluation."""
    if not isinstance(entries, list | tuple):
        return entries
    others = [entry for entry in entries if entry not in ("sft", {"sft": {}}, {"sft": None}, {"type": "sft"})]
    if entries and not others:
        raise ValueError("sft, the fine-tuned student, is in every evaluation: name a method to compare it with")
    return tuple(map(_named_objective, others))


Baselines = Annotated[tuple[Baseline, ...], BeforeValidator(_without_fine_tuned)]


class CalibrationSection(Section):
    """Whether the student finds the better of several texts the likelier one, before and after distillation."""

    rows: PositiveInt = Field(default=64, description="Test prompts, from the first on.")
    samples: PositiveInt = Field(default=2, description="Answers a prompt of the fine-tuned student.")
    teacher_samples: int | None = Field(
        default=None,
        ge=0,
        description="Answers a prompt of the teacher. Default: `samples` of one in this process, none of one behind an "
        "endpoint or in a file, which may cost money or have no more.",
    )
    temperature: float = Field(default=0.7, gt=0, description="Temperature of these answers.")


class EvaluateSection(Section):
    judges: tuple[JudgeSection, ...] = Field(default_factory=JudgeSection.reference)
    rouge: bool = Field(default=True, description="ROUGE-1, ROUGE-2 and ROUGE-L F1 against the best reference.")
    stemmer: bool = Field(default=False, description="Porter-stem English words before ROUGE.")
    temperature: float = Field(default=0.0, ge=0, description="Temperature of the evaluated answers; 0 is greedy.")
    max_new_tokens: PositiveInt | None = Field(default=None, description="Default: `generate.max_new_tokens`.")
    limit: PositiveInt | None = Field(default=None, description="Evaluate only the first N test rows.")
    bootstrap: PositiveInt = Field(default=10_000, description="Resamples of the paired bootstrap over prompts.")
    calibration: CalibrationSection | None = Field(
        default=CalibrationSection(),
        description="Calibration of likelihoods; it asks for further answers. null switches it off.",
    )
    baselines: Baselines = Field(
        default=(),
        description="Methods to train and evaluate beside the student, from the same fine-tuned student with as many "
        "updates: seqkd, kd, f_distill-js, minillm, gkd, distillm, or objectives as in `distill.objective`; sft is the "
        "fine-tuned student itself.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> "EvaluateSection":
        names = [b.name for b in self.baselines]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"two baselines are called {twice}: give one a `name` of its own")
        return self
