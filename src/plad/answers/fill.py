"""Answers to examples, through the ledger: only what is missing is asked, whoever answers."""

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from plad.answers.engine import Encoded, Engine
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Question, Spec, request_key
from plad.answers.reply import Reply
from plad.errors import Interrupted, RunDirError
from plad.progress import Progress
from plad.records import Example, Generation, Outcome

T = TypeVar("T")
_CHUNK = 64  # examples encoded and looked up together; more would hold up answers that arrive meanwhile


def fill(
    engine: Engine[Encoded],
    examples: Iterable[Example],
    answers: AnswerSet,
    ledger: Ledger,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Let an engine answer every example, `sampling.samples` times each, into the ledger.

    Each answer is committed as it arrives, and what the ledger holds is not asked again; answers that failed are. An
    answer depends on its example, its number and the settings; never on the other examples, their number or order.
    Memory doesn't grow with their number either.

    Returns:
        Number of answers by outcome, those that were there before included.

    Raises:
        Interrupted: stopped by Ctrl-C or SIGTERM; all finished answers are recorded.
        RunDirError: the ledger can't be written.
        PladError: whatever the engine raises; all finished answers are recorded.
    """
    bar = progress or Progress(answers.system, 0, "answers")
    filling = _Filling(engine, answers, ledger, bar)
    try:
        with _sigterm_interrupts():
            engine.answer(filling.missing(examples), answers.sampling, filling.record)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{answers.system}: stopped; {bar.done:,} of {bar.total:,} answers are recorded",
            fix="the same command continues with the rest",
        ) from None
    return {str(outcome): n for outcome, n in filling.total.items()}


def answer(
    engine: Engine[Encoded],
    examples: Sequence[Example],
    answers: AnswerSet,
    ledger: Ledger,
    progress: Progress | None = None,
) -> list[Generation]:
    """`fill` the ledger, and read the answers: in order of examples, then sample numbers."""
    bar = progress or Progress(answers.system, len(examples) * answers.sampling.samples, "answers")
    fill(engine, examples, answers, ledger, bar)
    by_example = recorded(examples, answers, ledger)
    return [generation for example in examples for generation in by_example[example.id]]


def recorded(examples: Sequence[Example], answers: AnswerSet, ledger: Ledger) -> dict[str, list[Generation]]:
    """The answers that `fill` got when it was last called with the same arguments, by example; needs no engine.

    Raises:
        RunDirError: some are missing.
    """
    by_example = dict(_lookup(examples, answers, ledger))
    wanted = len(by_example) * answers.sampling.samples
    if missing := wanted - sum(map(len, by_example.values())):
        raise RunDirError(
            f"{missing:,} of {wanted:,} answers of {answers.system} are missing",
            where=str(ledger.path),
            fix="plad run CONFIG --clean generate samples what is missing",
        )
    return by_example


def are_recorded(examples: Iterable[Example], answers: AnswerSet, ledger: Ledger) -> bool:
    """Whether `fill` would ask for nothing: every answer is there, and none of them failed."""
    return all(n == answers.sampling.samples for n in count_recorded(examples, answers, ledger).values())


def count_recorded(examples: Iterable[Example], answers: AnswerSet, ledger: Ledger) -> dict[str, int]:
    """How many answers to each example `fill` would not ask for again, by example; needs no engine."""
    return {
        example_id: sum(generation.outcome is not Outcome.FAILED for generation in given)
        for example_id, given in _lookup(examples, answers, ledger)
    }


def _lookup(examples: Iterable[Example], answers: AnswerSet, ledger: Ledger) -> Iterator[tuple[str, list[Generation]]]:
    for chunk in _chunks(examples):
        asks = {example.id: answers.asks(example) for example in chunk}
        known = ledger.asked([ask for same in asks.values() for ask in same])
        for other in answers.others():
            former = {a: b for e in chunk for a, b in zip(other.asks(e), asks[e.id], strict=True) if b not in known}
            known |= {former[ask]: given for ask, given in ledger.asked(list(former)).items()}
        for example_id, same in asks.items():
            yield example_id, [known[ask] for ask in same if ask in known]


@dataclass(slots=True)
class _Batch:
    """Examples looked up together; once all are answered, that is remembered.

    Attributes:
        name: made of what is asked.
        key: made of all that shapes the answers.
    """

    name: str
    key: str
    counts: Counter[str] = field(default_factory=Counter[str])
    missing: int = 0

    def close(self, ledger: Ledger) -> None:
        """Remember a batch that is answered; failed answers are asked again, so they keep it open."""
        if not self.missing and not self.counts[Outcome.FAILED]:
            ledger.finish(self.name, self.key, self.counts)


@dataclass(slots=True)
class _Filling(Generic[Encoded]):
    """One call of `fill`."""

    engine: Engine[Encoded]
    answers: AnswerSet
    ledger: Ledger
    bar: Progress
    total: Counter[str] = field(default_factory=Counter[str])
    waiting: dict[str, _Batch] = field(default_factory=dict[str, _Batch])  # by key, the answers under way

    def missing(self, examples: Iterable[Example]) -> Iterator[Question[Encoded]]:
        """What the ledger lacks, looked up as the engine asks for more."""
        shared = {**self.engine.spec(), **self.answers.sampling.settings()}
        for chunk in _chunks(examples):
            name = self.answers.batch(chunk)
            batch = _Batch(name, request_key({"shared": shared, "batch": name}))
            known = self.ledger.finished(batch.name, batch.key)
            if known is None:
                prompts = [(e, self.engine.encode(e)) for e in chunk]
                questions = [q for e, p in prompts for q in self.answers.questions(e, p, shared)]
                yield from self._missing(batch, questions, self._named_otherwise(prompts, shared))
            else:
                self.total.update(known)
                self.bar.skip(sum(known.values()))

    def _named_otherwise(self, prompts: list[tuple[Example, Encoded]], shared: Spec) -> list[list[str]]:
        """The keys of the same questions in the same order, as runs recorded them that name the weights otherwise."""
        if shared.get("weights") != self.answers.weights:
            return []
        return [
            [q.key for e, p in prompts for q in other.questions(e, p, {**shared, "weights": other.weights})]
            for other in self.answers.others()
        ]

    def _missing(
        self, batch: _Batch, questions: list[Question[Encoded]], others: list[list[str]]
    ) -> Iterable[Question[Encoded]]:
        outcomes: dict[str, Outcome] = {}
        recorded_as: dict[str, str] = {}
        for keys in ([q.key for q in questions], *others):
            same = {key: q.key for key, q in zip(keys, questions, strict=True) if q.key not in outcomes}
            for key, outcome in self.ledger.outcomes(list(same)).items():
                if outcome is not Outcome.FAILED:
                    outcomes[same[key]], recorded_as[same[key]] = outcome, key
        self.ledger.begin(batch.name, {q.ask: recorded_as[q.key] for q in questions if q.key in outcomes})
        batch.counts.update(outcomes.values())
        self.total.update(outcomes.values())
        new = {q.key: q for q in questions if q.key not in outcomes and q.key not in self.waiting}
        self.bar.skip(len(questions) - len(new))
        batch.missing = len(new)
        batch.close(self.ledger)
        self.waiting.update(dict.fromkeys(new, batch))
        return new.values()

    def record(self, question: Question[object], reply: Reply) -> None:
        """Commit an answer."""
        self.ledger.put(question, self.answers.system, reply)
        batch = self.waiting.pop(question.key)
        batch.missing -= 1
        batch.counts[reply.outcome] += 1
        self.total[reply.outcome] += 1
        batch.close(self.ledger)
        self.bar.advance(1, tokens=reply.completion_tokens)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


@contextlib.contextmanager
def _sigterm_interrupts() -> Generator[None]:
    """Let SIGTERM do what Ctrl-C does, where nobody else handles it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
