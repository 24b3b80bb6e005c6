"""Sampling answers, and making pairs of them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from plad.config.base import PACES, PositiveInt, Section, WritablePath
from plad.config.judges import JudgeSection


class GenerateSection(Section):
    temperature: float = Field(
        default=0.7, ge=0, description="Softmax temperature tau of Eq. 1; 0 is greedy. Paper: 0.7."
    )
    max_new_tokens: PositiveInt = Field(default=64, description="Most tokens of an answer, end of sequence included.")
    samples: PositiveInt = Field(default=1, description="Teacher answers a prompt.")
    student_samples: PositiveInt | None = Field(
        default=None, description="Student answers a prompt. Default: `samples`."
    )
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the distillation prompts that are answered and learnt from; a smaller share is part of "
        "every larger one. Paper, section 5.5: 0.05 to 1.",
    )
    slots: Annotated[PositiveInt, PACES] = Field(default=8, description="Answers sampled at once; bounds the cache.")
    ledger: Annotated[WritablePath | None, PACES] = Field(
        default=None,
        description="File of the answers, which several runs may share. Default: generations.sqlite in run.dir.",
    )
    max_failed: Annotated[float, PACES] = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Largest share of a system's answers that may be missing: failed, or not accepted as a request.",
    )


class DropRules(Section):
    """Pairs that teach nothing, or the wrong thing."""

    identical: bool = Field(default=True, description="Drop pairs whose two texts are the same.")
    empty: bool = Field(default=True, description="Drop pairs with an empty text.")
    truncated: Literal["both", "teacher"] = Field(
        default="both",
        description="Drop pairs in which either answer was cut off, or only those in which the teacher's was.",
    )


class SelectAll(Section):
    """Every teacher answer meets every student answer to its prompt."""

    type: Literal["all"] = "all"


class SelectBestWorst(Section):
    """One pair a prompt: the teacher's best answer by `scorer` against the student's worst."""

    type: Literal["best_worst"] = "best_worst"


class SelectRso(Section):
    """Statistical rejection sampling: keep student answers as if the policy best for the scorer had given them."""

    type: Literal["rso"] = "rso"
    beta: float = Field(
        default=0.5,
        gt=0,
        description="In units of the score: an answer is accepted with probability exp((score - highest) / beta).",
    )
    keep: PositiveInt = Field(default=8, description="Student answers accepted a prompt, of `student_samples`.")
    opponent: Literal["teacher", "student"] = Field(
        default="teacher",
        description="teacher: accepted answers are rejected for the teacher's (Eq. 3). student: they are paired at "
        "random with each other and ordered by `scorer`, as RSO does; the teacher's answers are not used.",
    )


def _named(value: object) -> object:
    """`best_worst` for `{type: best_worst}`."""
    return {"type": value} if isinstance(value, str) else value


Select = Annotated[
    SelectAll | SelectBestWorst | SelectRso,
    Field(discriminator="type"),
    BeforeValidator(_named, json_schema_input_type=Any),
]


class ConfidenceSection(Section):
    """What becomes of a pair that the scorer looked at, by the difference of its two scores."""

    margin: float = Field(default=0.0, ge=0, description="Smallest difference that counts, in units of the score.")
    below: Literal["keep", "drop"] = Field(
        default="keep", description="A smaller difference (a tie aside): keep the teacher's answer as chosen, or drop."
    )
    wrong: Literal["swap", "drop", "keep"] = Field(
        default="swap", description="The student's answer is better: swap the two, drop the pair, or only count it."
    )


class PreferenceColumns(Section):
    """Names of the columns of labelled preferences."""

    id: str = Field(default="id", description="Names a row in messages; its place where there is none.")
    prompt: str = Field(default="prompt", description="Text or messages.")
    chosen: str = Field(default="chosen", description="The answer that people found better.")
    rejected: str = Field(default="rejected", description="The other answer.")
    tie: str = Field(default="tie", description="true where people found neither better; may be missing.")
    references: str = Field(default="references", description="Texts to hold the answers against; may be missing.")


class PairsFile(Section):
    """Preferences that exist already, added to the run's own pairs."""

    path: str = Field(
        description="JSONL (also .gz), parquet, or a hub name owner/name:split; of TRL, UltraFeedback or DPO."
    )
    columns: PreferenceColumns = PreferenceColumns()
    limit: PositiveInt | None = Field(default=None, description="Use only the first N usable rows.")


class PairsSection(Section):
    file: PairsFile | None = Field(default=None, description="Preferences of a file beside the run's own pairs.")
    drop: DropRules = DropRules()
    scorer: JudgeSection | None = Field(
        default=None, description="Who looks at pairs for `real_share` and `select`: any judge that `evaluate` takes."
    )
    real_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the prompts whose pairs are ordered by `scorer` (real preferences) and not by their "
        "source; a smaller share is part of every larger one. Paper, section 5.3: 0 to 1.",
    )
    ties: Literal["keep", "drop"] = Field(
        default="keep", description="Equal scores: keep the teacher's answer as chosen, or drop the pair."
    )
    confidence: ConfidenceSection = ConfidenceSection()
    select: Select = Field(default=SelectAll(), description="Which answers meet: all, best_worst, or rso.")

    @model_validator(mode="after")
    def _scorer_where_needed(self) -> "PairsSection":
        if self.scorer is None and self.scores:
            use = f"real_share {self.real_share:g}" if self.select.type == "all" else f"select {self.select.type}"
            raise ValueError(f"{use} needs pairs.scorer, such as {{type: reference}} or {{type: reward, model: ...}}")
        return self

    @property
    def scores(self) -> bool:
        """Whether the scorer has anything to do."""
        return self.real_share > 0 or self.select.type != "all"
