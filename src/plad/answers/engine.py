"""Who answers: a model in this process, a server, a file.

An engine is one file: its section, which is what a config says of it, and what answers. It lives in `plad.sampling`,
`plad.remote` or `plad.answers`, or in another package that names it in the entry-point group `plad.engines`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import JsonValue

from plad.answers.ledger import Ledger
from plad.answers.question import Question, Sampling, Spec
from plad.answers.reply import Reply, Tokenizer
from plad.config.engines import BudgetSection, EngineSection
from plad.config.models import TeacherSection
from plad.errors import Findings
from plad.records import Example, Outcome, Prompt

Encoded = TypeVar("Encoded")

Record = Callable[[Question[object], Reply], None]
"""Receives a question and how it ended; the reply is committed when it returns."""


class Engine(Protocol[Encoded]):
    """Turns prompts into replies.

    `Encoded` is a prompt as this engine sees it, in what JSON can hold: token ids, messages or text.
    """

    def spec(self) -> Spec:
        """What shapes every answer, apart from prompt, sampling and seed; its `engine` is the section's type."""
        ...

    def encode(self, example: Example) -> Encoded:
        """A prompt as it is sent."""
        ...

    def answer(self, questions: Iterable[Question[Encoded]], sampling: Sampling, record: Record) -> None:
        """Settle every question, in any order; questions are read as they are needed."""
        ...


@runtime_checkable
class LimitedEngine(Protocol):
    """An engine that knows beforehand which prompts it has no answer to."""

    @property
    def name(self) -> str:
        """What a message calls it."""
        ...

    def lacking(self, examples: Iterable[Example]) -> int:
        """How many examples it has no answer to."""
        ...


@dataclass(frozen=True, slots=True)
class EngineResources:
    """What a run lends an engine.

    Attributes:
        teacher: its section; where the engine is local, a relative path of its model is resolved.
        base: where other relative paths start.
        weights: fingerprint of who answers.
        folder: the fine-tuned teacher; None where the section's own model answers.
        slots: answers in progress at once.
        ledger: takes the answers, and knows what the run has spent; None where the engine is only looked at.
    """

    teacher: TeacherSection
    base: Path
    weights: str
    folder: Path | None = None
    slots: int = 1
    budget: BudgetSection | None = None
    ledger: Ledger | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `plad validate` shows an engine.

    Attributes:
        distill, test: the prompts it will be asked; None where the data has problems.
        max_failed: share of the distillation prompts that may stay without an answer.
        online: one request may be sent.
        sampling, seed: of the answers that the run will ask for.
    """

    teacher: TeacherSection
    base: Path
    distill: Sequence[Example] | None = None
    test: Sequence[Example] | None = None
    max_failed: float = 0.0
    online: bool = False
    sampling: Sampling = field(default_factory=lambda: Sampling(0.7, 64))
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sending:
    """How a teacher's prompts are sent, for who counts their tokens without asking.

    Attributes:
        put: a prompt as it is sent.
        tokenizer: counts it; None where there is none on this machine.
    """

    put: Callable[[Example], Prompt]
    tokenizer: Tokenizer | None = None


class EngineKind(EngineSection):
    """Base of all engines' sections."""

    @abstractmethod
    def open(self, resources: EngineResources) -> Engine[Any]:  # each engine has its own kind of encoded prompt
        """What answers.

        Raises:
            PladError: a model, tokenizer or file can't be used.
        """

    def require(self) -> None:
        """Find out at once what is missing: a package, a key.

        Raises:
            PladError: it can't be asked at all.
        """

    def source(self, teacher: TeacherSection, base: Path) -> dict[str, JsonValue]:
        """All that a teacher's answers depend on whose weights are not here."""
        prompt = teacher.prompt.model_dump(mode="json", include=set(self.prompt_fields))
        return {**self.shaping(), "model": teacher.model, "revision": teacher.revision, "prompt": prompt}

    def check(self, findings: Findings, task: Inspection) -> None:
        """What `plad validate` finds out without asking.

        Raises:
            PladError: a problem; its `where` may be a field of the section.
        """
        self.require()
        findings.add("ok", "teacher", f"{task.teacher.model} by engine {self.tag()}")

    def sending(self, teacher: TeacherSection, base: Path) -> Sending:
        """How prompts are sent, where the engine isn't local."""
        return Sending(lambda example: example.prompt)


def engine_kind(section: EngineSection) -> EngineKind:
    """The section as what a run does with it."""
    return section.derived(EngineKind)


def fitting(
    questions: Iterable[Question[Encoded]],
    record: Record,
    tokens: Callable[[Encoded], int],
    fits: Callable[[int], bool],
) -> Iterator[Question[Encoded]]:
    """The questions whose prompts leave room for an answer; the others are settled here, and never sent."""
    for question in questions:
        n = tokens(question.prompt)
        if fits(n):
            yield question
        else:
            record(question, Reply(Outcome.TOO_LONG, prompt_tokens=n, attempts=0))
