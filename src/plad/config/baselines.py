"""What the student is compared with: other objectives, each trained from the same fine-tuned student."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from plad.config.base import Section
from plad.config.objectives import ObjectiveSection, named_objective, objective_of

_SYSTEMS = ("target", "teacher", "student_sft", "student")
SEQKD = "seqkd"


class Baseline(Section):
    """One method: an objective under a name of its own."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,40}$", description="Names its folder and its row: small letters, digits, - _ ."
    )
    objective: ObjectiveSection = Field(default_factory=objective_of("kd"))

    @model_validator(mode="after")
    def _is_no_system(self) -> "Baseline":
        if self.name in _SYSTEMS or self.name.startswith("student_round_"):
            raise ValueError(f"{self.name} is what every run evaluates; give the method another name")
        return self


def _one(entry: Any) -> Any:
    """`kd`, `f_distill-js`, `{f_distill: {divergence: js}}` or `{type: kd, name: ...}` as a named objective."""
    if isinstance(entry, str):
        return {"name": entry, "objective": named_objective("sft" if entry == SEQKD else entry)}
    if not isinstance(entry, dict) or "objective" in entry:
        return entry
    settings = dict(entry)
    if len(settings) == 1 and "type" not in settings:
        ((kind, inner),) = settings.items()
        settings = {**(inner or {}), "type": "sft" if kind == SEQKD else kind}
    name = settings.pop("name", None) or _name(settings)
    return {"name": name, "objective": settings}


def _name(settings: dict[str, Any]) -> str:
    """The type and what was chosen in it by a word: `f_distill-js`, `rank-sum`."""
    kind = str(settings.get("type", ""))
    words = [v for k, v in settings.items() if k in ("divergence", "length_normalization", "scores", "text")]
    return "-".join([SEQKD if kind == "sft" else kind, *map(str, words)])


def _all(entries: Any) -> Any:
    """Every entry but `sft`, however it is spelt: the fine-tuned student is part of every evaluation."""
    if not isinstance(entries, list | tuple):
        return entries
    others = [entry for entry in entries if entry not in ("sft", {"sft": {}}, {"sft": None}, {"type": "sft"})]
    if entries and not others:
        raise ValueError("sft, the fine-tuned student, is in every evaluation: name a method to compare it with")
    return tuple(_one(_tuples(entry)) for entry in others)


def _tuples(value: Any) -> Any:
    """Lists as tuples: past this point a strict config takes nothing else."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


Baselines = Annotated[tuple[Baseline, ...], BeforeValidator(_all)]
