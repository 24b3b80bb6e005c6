"""The objectives a student can be trained with."""

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BeforeValidator, Field, model_validator

from plad.config.base import PositiveInt, Section
from plad.config.distillation import (
    DistillmObjective,
    FDistillObjective,
    GkdObjective,
    KdObjective,
    LogitObjective,
    MiniLlmObjective,
)
from plad.errors import ConfigError

Normalization = Literal["sum", "mean"]
_NORMALIZATION = "log P of a text: the sum over its tokens, or their mean."
_SFT_WEIGHT = "Weight of the mean token cross-entropy of the chosen text beside the loss; 0 is the loss alone."


class PairObjective(Section):
    """What every objective on pairs shares."""

    length_normalization: Normalization = Field(default="mean", description=_NORMALIZATION)
    sft_weight: float = Field(default=0.0, ge=0, description=_SFT_WEIGHT)
    sft_epochs: float = Field(
        default=0.0,
        ge=0,
        description="Passes of cross-entropy on the chosen texts (SeqKD) before the loss is first applied; 0 is none.",
    )
    rejected_end: bool = Field(
        default=True, description="Whether the end-of-sequence token of a rejected text enters the loss."
    )


class AnchoredObjective(PairObjective):
    """An objective that may be tied to the starting student."""

    anchor_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of (log P - log P of the starting student)^2 / 2 of the rejected text, which keeps it from "
        "being pushed down by more than about 1 / anchor_weight nats; 0 is the loss alone.",
    )


class RankObjective(AnchoredObjective):
    """Ranking calibration, Eq. 4."""

    type: Literal["rank"] = "rank"
    beta: float = Field(
        default=1.0, ge=0, description="Margin in nats (of the whole text for sum, of a token for mean). Paper: 1.0."
    )


class MarginObjective(AnchoredObjective):
    """Margin calibration, Eq. 5."""

    type: Literal["margin"] = "margin"
    beta: float = Field(
        default=1.0,
        ge=0,
        description="Nats (of the whole text for sum, of a token for mean) a unit of similarity. Paper: 1.0.",
    )
    scores: Literal["frozen", "live"] = Field(
        default="frozen",
        description="Similarity to the reference by the starting student's states, measured once and kept with the "
        "pairs, or by the student's as it is at every step.",
    )
    spans: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4, 8), min_length=1, description="Lengths of the spans of states that are compared (Eq. 6-8)."
    )
    reference: Literal["target", "teacher"] = Field(
        default="target",
        description="What candidates are compared with. target: the prompt's target, or another answer of the teacher "
        "where there is none; teacher: always another answer of the teacher (generate.samples above 1).",
    )


class DpoObjective(PairObjective):
    """Direct preference optimisation; the starting student's log-probabilities are measured once and kept."""

    type: Literal["dpo"] = "dpo"
    length_normalization: Normalization = Field(default="sum", description=_NORMALIZATION)
    beta: float = Field(default=0.1, gt=0, description="Strength of the tie to the starting student.")


class SlicObjective(AnchoredObjective):
    """Sequence likelihood calibration (SLiC-HF): a hinge and cross-entropy in its unit."""

    type: Literal["slic"] = "slic"
    length_normalization: Normalization = Field(default="sum", description=_NORMALIZATION)
    beta: float = Field(default=1.0, ge=0, description="Margin in nats (of the whole text for sum, a token for mean).")
    regularization: float = Field(default=1.0, ge=0, description="Weight of -log P of the chosen text (lambda).")


class RrhfObjective(PairObjective):
    """Ranking responses (RRHF): a hinge without margin over all ordered pairs, and cross-entropy of the best text."""

    type: Literal["rrhf"] = "rrhf"
    sft_weight: float = Field(default=1.0, ge=0, description="Weight of the best text's mean token cross-entropy.")


class LipoObjective(PairObjective):
    """Listwise preference optimisation (LiPO-lambda) over all candidates of a prompt."""

    type: Literal["lipo"] = "lipo"
    length_normalization: Normalization = Field(default="sum", description=_NORMALIZATION)
    beta: float = Field(default=0.1, gt=0, description="Strength of the tie to the starting student.")


class SimpoObjective(AnchoredObjective):
    """Simple preference optimisation (SimPO): no reference, a margin in the reward."""

    type: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, description="Scale of the reward, which is log P of a text.")
    gamma: float = Field(default=1.0, ge=0, description="Margin of the reward.")


class SftObjective(Section):
    """Cross-entropy on the teacher's answers: SeqKD."""

    type: Literal["sft"] = "sft"


SingleObjective = Annotated[
    RankObjective
    | MarginObjective
    | DpoObjective
    | SlicObjective
    | RrhfObjective
    | LipoObjective
    | SimpoObjective
    | SftObjective
    | KdObjective
    | FDistillObjective
    | MiniLlmObjective
    | GkdObjective
    | DistillmObjective,
    Field(discriminator="type"),
]


def _from_name(value: Any) -> Any:
    return named_objective(value).model_dump() if isinstance(value, str) else value


class AutoObjective(Section):
    """Trains each candidate from the same student and keeps the one with the best validation win rate."""

    type: Literal["auto"] = "auto"
    candidates: tuple[Annotated[SingleObjective, BeforeValidator(_from_name)], ...] = Field(
        default=(RankObjective(), MarginObjective()),
        min_length=2,
        description="Objectives, or names such as `rank`, `rank-sum`, `margin-live`. Paper: rank and margin (A.7).",
    )

    @model_validator(mode="after")
    def _candidates_differ(self) -> "AutoObjective":
        twice = [c for i, c in enumerate(self.candidates) if c in self.candidates[:i]]
        if twice:
            raise ValueError(f"the same candidate stands there twice: {twice[0].model_dump_json()}")
        return self


Objective = Annotated[SingleObjective | AutoObjective, Field(discriminator="type")]


def named_objective(name: str, base: SingleObjective | None = None) -> SingleObjective:
    """An objective by its type and, after dashes, by what is chosen in it: `rank`, `rank-sum`, `margin-live-sum`.

    Args:
        base: where its other settings come from, if it is of the same type; else they are the defaults.

    Raises:
        ConfigError: no such type, or a choice that it doesn't have.
    """
    kinds = {kind.model_fields["type"].default: kind for kind in get_args(get_args(SingleObjective)[0])}
    type_name, *wanted = name.split("-")
    if type_name not in kinds:
        raise ConfigError(f"no objective {type_name!r}", where=name, fix=f"one of {', '.join(kinds)}")
    kind = kinds[type_name]
    chosen: dict[str, str] = {}
    for choice in wanted:
        field = _field_of(choice, type_name, kind, name)
        if field in chosen:
            raise ConfigError(f"{chosen[field]} and {choice} are both a {field}", where=name, fix="leave one out")
        chosen[field] = choice
    settings: Section = base if isinstance(base, kind) else kind()  # type: ignore[assignment]
    return settings.model_copy(update=chosen)  # type: ignore[return-value]


def _field_of(choice: str, type_name: str, kind: type[Section], name: str) -> str:
    """The one field of an objective in which a word is a choice; where its teacher is kept is no choice of method."""
    fields = [
        (word, field)
        for field, about in kind.model_fields.items()
        if field not in ("type", *LogitObjective.model_fields) and get_origin(about.annotation) is Literal
        for word in get_args(about.annotation)
    ]
    found = [field for word, field in fields if word == choice]
    if len(found) == 1:
        return found[0]
    if found:
        ways = " or ".join(f"{{type: {type_name}, {field}: {choice}}}" for field in found)
        raise ConfigError(
            f"{choice!r} may be {' or '.join(found)} of {type_name}", where=name, fix=f"say which: {ways}"
        )
    fix = f"one of {', '.join(dict(fields))}" if fields else f"plain {type_name}"
    raise ConfigError(f"{type_name} has no choice {choice!r}", where=name, fix=fix)
