"""What a student is trained to minimise, as a run sees it: objectives by their names, and what each says of itself.

The objectives themselves are in `plad.objectives` and `plad.distillers`, one class each, and in installed packages.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BeforeValidator, Field, model_validator

from plad.config.kinds import Kind
from plad.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SimilarityNeeds:
    """Similarity of every text to a reference (Eq. 6-8).

    Attributes:
        spans: lengths of the spans of states that are compared.
        live: by the student as it is at every step; else measured once with the starting student.
        reference: the prompt's target where there is one, or always another answer of the teacher.
    """

    spans: tuple[int, ...]
    live: bool
    reference: Literal["target", "teacher"]


@dataclass(frozen=True, slots=True)
class TextNeeds:
    """The texts that training on a teacher's logits reads.

    Attributes:
        teacher, student: which answers of before training; with neither, prompts alone matter.
        share: of the steps that are on the student's texts; 0 where every step trains on what its groups hold.
        both: whether a step on the student's texts keeps the teacher's beside them.
        temperature: of the student's fresh samples; None where those of before training are taken.
        targets: when the data's targets stand for the teacher's answers.
    """

    teacher: bool = True
    student: bool = False
    share: float = 0.0
    both: bool = False
    temperature: float | None = None
    targets: Literal["never", "if_complete", "always"] = "never"


@dataclass(frozen=True, slots=True)
class LogitNeeds:
    """The teacher's logits of every text.

    Attributes:
        dtype, device: of the teacher beside the student; `auto` as the teacher's section, the student's device.
        texts: what is trained on.
        top_k: tokens a position of logits that are stored before training; None where the teacher scores every batch.
        temperature: of the softmax that is stored.
    """

    dtype: str
    device: str
    texts: TextNeeds
    top_k: int | None = None
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class DocumentNeeds:
    """Plain text.

    Attributes:
        file: one document a line, or JSONL with `text`.
        tokens: of one stretch of it.
    """

    file: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What an objective takes beside the pairs' prompts; nothing is given to it that isn't named here.

    Attributes:
        pairs: it compares a prompt's texts; else it learns the teacher's answers one by one.
        reference_logps: log P of every text by the starting student.
        similarity: of every text to a reference.
        rejected_end: the end-of-sequence token of a rejected text enters the loss.
        warm_up: passes of cross-entropy on the chosen texts before the loss is first applied.
        teacher_answers: fewest answers of the teacher to a prompt.
        logits: the teacher's, of texts that are not the pairs'.
        documents: plain text that is trained on beside.
        dropout: dropout is on while the loss is computed.
        decoder_only: it can't be had of an encoder-decoder, for this reason; None where any model will do.
    """

    pairs: bool = False
    reference_logps: bool = False
    similarity: SimilarityNeeds | None = None
    rejected_end: bool = True
    warm_up: float = 0.0
    teacher_answers: int = 1
    logits: LogitNeeds | None = None
    documents: DocumentNeeds | None = None
    dropout: bool = True
    decoder_only: str | None = None


class AnyObjective(Kind):
    """What `distill.objective` may be: one objective, or a choice among several."""

    group: ClassVar[str] = "plad.objectives"
    homes: ClassVar[tuple[str, ...]] = ("plad.objectives", "plad.distillers")

    @property
    @abstractmethod
    def alternatives(self) -> "tuple[ObjectiveSection, ...]":
        """The objectives that students are trained with."""

    @abstractmethod
    def describe(self) -> str:
        """One sentence's worth: the loss, its settings, and what stands beside it."""


class ObjectiveSection(AnyObjective):
    """One objective.

    Attributes:
        unnamed: fields that are no choice of method, so that a name such as `rank-sum` can't choose in them.
    """

    group: ClassVar[str] = "plad.objectives"
    unnamed: ClassVar[frozenset[str]] = frozenset({"type"})

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What it takes beside the pairs' prompts."""

    @property
    def alternatives(self) -> "tuple[ObjectiveSection, ...]":
        """Itself."""
        return (self,)

    def as_baseline(self) -> Self:
        """The objective beside others, that all learn from the same texts where it isn't told otherwise."""
        return self

    def warmed_up(self) -> Self:
        """The objective of a student that has gone through its warm-up."""
        return self


def objective_of(tag: str) -> Callable[[], ObjectiveSection]:
    """Makes the objective of a `type` with its defaults: a field's `default_factory`."""

    def make() -> ObjectiveSection:
        kind = ObjectiveSection.named(tag)
        assert kind is not None
        return kind.model_validate({})

    return make


def _from_name(value: Any) -> Any:
    return named_objective(value) if isinstance(value, str) else value


class AutoObjective(AnyObjective):
    """Trains each candidate from the same student and keeps the one with the best validation win rate."""

    type: Literal["auto"] = "auto"
    candidates: tuple[Annotated[ObjectiveSection, BeforeValidator(_from_name)], ...] = Field(
        default_factory=lambda: (objective_of("rank")(), objective_of("margin")()),
        min_length=2,
        description="Objectives, or names such as `rank`, `rank-sum`, `margin-live`. Paper: rank and margin (A.7).",
    )

    @model_validator(mode="after")
    def _candidates_differ(self) -> "AutoObjective":
        twice = [c for i, c in enumerate(self.candidates) if c in self.candidates[:i]]
        if twice:
            raise ValueError(f"the same candidate stands there twice: {twice[0].model_dump_json()}")
        return self

    @property
    def alternatives(self) -> tuple[ObjectiveSection, ...]:
        """The candidates."""
        return self.candidates

    def describe(self) -> str:
        """All candidates."""
        return "the best on validation of " + "; ".join(c.describe() for c in self.candidates)


def named_objective(name: str, base: ObjectiveSection | None = None) -> ObjectiveSection:
    """An objective by its type and, after dashes, by what is chosen in it: `rank`, `rank-sum`, `margin-live-sum`.

    Args:
        base: where its other settings come from, if it is of the same type; else they are the defaults.

    Raises:
        ConfigError: no such type, or a choice that it doesn't have.
    """
    tag, *words = name.split("-")
    kind = ObjectiveSection.named(tag)
    if kind is None:
        kinds = ", ".join(ObjectiveSection.kinds())
        raise ConfigError(f"no objective {tag!r}", where=name, fix=f"one of {kinds}")
    chosen: dict[str, str] = {}
    for word in words:
        field = _field_of(word, kind, name)
        if field in chosen:
            raise ConfigError(f"{chosen[field]} and {word} are both a {field}", where=name, fix="leave one out")
        chosen[field] = word
    settings = base if isinstance(base, kind) else kind.model_validate({})
    return settings.model_copy(update=chosen)


def _field_of(choice: str, kind: type[ObjectiveSection], name: str) -> str:
    """The one field of an objective in which a word is a choice."""
    tag = kind.tag()
    choices = [
        (word, field)
        for field, info in kind.model_fields.items()
        if field not in kind.unnamed and get_origin(info.annotation) is Literal
        for word in get_args(info.annotation)
    ]
    fields = [field for word, field in choices if word == choice]
    if len(fields) == 1:
        return fields[0]
    if fields:
        ways = " or ".join(f"{{type: {tag}, {field}: {choice}}}" for field in fields)
        raise ConfigError(f"{choice!r} may be {' or '.join(fields)} of {tag}", where=name, fix=f"say which: {ways}")
    fix = f"one of {', '.join(dict(choices))}" if choices else f"plain {tag}"
    raise ConfigError(f"{tag} has no choice {choice!r}", where=name, fix=fix)
