"""Answers to examples, through the ledger: only what is missing is asked, whoever answers.

An engine turns prompts into replies: a model in this process, a server, a file. It says what shapes its answers
(`spec`), how it sees a prompt (`encode`), and answers questions in whatever order and number suit it (`answer`).
"""

import contextlib
import hashlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar

from plad.answers.ledger import Ledger, canonical_json, request_key
from plad.answers.reply import Reply
from plad.errors import Interrupted, RunDirError
from plad.progress import Progress
from plad.records import Example, Generation, Outcome

T = TypeVar("T")
_CHUNK = 64  # examples encoded and looked up together; more would hold up answers that arrive meanwhile


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        temperature: tau of Eq. 1; 0 is greedy.
        max_new_tokens: most tokens of an answer, end of sequence included.
        samples: answers a prompt.
    """

    temperature: float
    max_new_tokens: int
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """One answer to get.

    Attributes:
        key: made of all that shapes the answer, `spec`.
        ask: made of what is known without a model.
        sample: number of the answer among those to this prompt, from 0.
        seed: of its own random stream.
        prompt: as the engine encoded it.
    """

    key: str
    ask: str
    example: Example
    sample: int
    seed: int
    prompt: Any
    spec: dict[str, Any]


Record = Callable[[Question, Reply], None]
"""Receives a question and how it ended; the reply is committed when it returns."""


class Engine(Protocol):
    """Who answers."""

    def spec(self) -> dict[str, Any]:
        """What shapes every answer, apart from prompt, sampling and seed; never a secret."""
        ...

    def encode(self, example: Example) -> Any:
        """A prompt as it is sent, as JSON has it: token ids, messages or text."""
        ...

    def answer(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> None:
        """Settle every question, in any order; questions are read as they are needed."""
        ...


def request_seed(seed: int, example_id: str, sample: int) -> int:
    """Seed of one request's random stream, from the run's seed, the example and the sample number."""
    digest = hashlib.sha256(canonical_json([seed, example_id, sample]).encode()).digest()
    return int.from_bytes(digest[:8])


def _ask(example: Example, number: int, system: str, weights: str, sampling: Sampling, seed: int) -> str:
    return request_key(
        {
            "system": system,
            "weights": weights,
            "example": example.id,
            "prompt": example.prompt,
            "sample": number,
            "seed": seed,
        }
        | _settings(sampling)
    )


@dataclass(slots=True)
class _Batch:
    """Examples looked up together; a whole one is remembered."""

    name: str
    key: str
    counts: Counter[str] = field(default_factory=Counter)
    missing: int = 0

    def close(self, ledger: Ledger) -> None:
        """Remember a batch that is answered; failed answers are asked again, so they keep it open."""
        if not self.missing and not self.counts[Outcome.FAILED]:
            ledger.finish(self.name, self.key, self.counts)


def fill(
    engine: Engine,
    examples: Iterable[Example],
    *,
    system: str,
    weights: str,
    sampling: Sampling,
    seed: int,
    ledger: Ledger,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Let an engine answer every example, `sampling.samples` times each, into the ledger.

    Each answer is committed as it arrives, and what the ledger holds is not asked again; answers that failed are. An
    answer depends on its example, its number and the settings; never on the other examples, their number or order.
    Memory doesn't grow with their number either.

    Args:
        system: name of the role, under which its answers are shown.
        weights: fingerprint of who answers; with it `recorded` finds the answers without the engine.
        seed: the run's seed.
        progress: counts answers and tokens.

    Returns:
        Number of answers by outcome, those that were there before included.

    Raises:
        Interrupted: stopped by Ctrl-C or SIGTERM; all finished answers are recorded.
        RunDirError: the ledger can't be written.
        PladError: whatever the engine raises; all finished answers are recorded.
    """
    bar = progress or Progress(system, 0, "answers")
    total: Counter[str] = Counter()
    asked: dict[str, _Batch] = {}  # by key, those under way

    def missing() -> Iterator[Question]:
        shared = engine.spec() | _settings(sampling)
        for chunk in _batches(examples):
            batch = _Batch(*_batch_names(chunk, shared, system, weights, sampling, seed))
            known = ledger.finished(batch.name, batch.key)
            if known is not None:
                total.update(known)
                bar.skip(sum(known.values()))
                continue
            questions = list(_questions(engine, chunk, shared, system, weights, sampling, seed))
            found = ledger.outcomes([q.key for q in questions])
            settled = {key: outcome for key, outcome in found.items() if outcome is not Outcome.FAILED}
            ledger.begin(batch.name, {q.ask: q.key for q in questions if q.key in settled})
            for outcome in settled.values():
                batch.counts[outcome] += 1
                total[outcome] += 1
            new = {q.key: q for q in questions if q.key not in settled and q.key not in asked}
            bar.skip(len(questions) - len(new))
            batch.missing = len(new)
            batch.close(ledger)
            asked.update(dict.fromkeys(new, batch))
            yield from new.values()

    def record(q: Question, reply: Reply) -> None:
        ledger.put(q.key, q.ask, system, q.example.id, q.sample, reply, spec=q.spec)
        batch = asked.pop(q.key)
        batch.missing -= 1
        batch.counts[reply.outcome] += 1
        total[reply.outcome] += 1
        batch.close(ledger)
        bar.advance(1, tokens=reply.completion_tokens)

    try:
        with _sigterm_interrupts():
            engine.answer(missing(), sampling, record)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{system}: stopped; {bar.done:,} of {bar.total:,} answers are recorded",
            fix="the same command continues with the rest",
        ) from None
    return {str(outcome): n for outcome, n in total.items()}


def answer(
    engine: Engine,
    examples: Sequence[Example],
    *,
    system: str,
    weights: str,
    sampling: Sampling,
    seed: int,
    ledger: Ledger,
    progress: Progress | None = None,
) -> list[Generation]:
    """`fill` the ledger, and read the answers: in order of examples, then sample numbers."""
    bar = progress or Progress(system, len(examples) * sampling.samples, "answers")
    same: dict[str, Any] = {"system": system, "weights": weights, "sampling": sampling, "seed": seed, "ledger": ledger}
    fill(engine, examples, **same, progress=bar)
    answers = recorded(examples, **same)
    return [generation for example in examples for generation in answers[example.id]]


def recorded(
    examples: Sequence[Example], *, system: str, weights: str, sampling: Sampling, seed: int, ledger: Ledger
) -> dict[str, list[Generation]]:
    """The answers that `fill` got when it was last called with the same arguments, by example; needs no engine.

    Raises:
        RunDirError: some are missing.
    """
    answers: dict[str, list[Generation]] = {}
    missing = 0
    for batch in _batches(examples):
        asks = {e.id: [_ask(e, k, system, weights, sampling, seed) for k in range(sampling.samples)] for e in batch}
        found = ledger.asked([ask for same in asks.values() for ask in same])
        for example_id, same in asks.items():
            answers[example_id] = [found[ask] for ask in same if ask in found]
            missing += len(same) - len(answers[example_id])
    if missing:
        raise RunDirError(
            f"{missing:,} of {len(examples) * sampling.samples:,} answers of {system} are missing",
            where=str(ledger.path),
            fix="plad run CONFIG --clean generate samples what is missing",
        )
    return answers


def settled(
    examples: Iterable[Example], *, system: str, weights: str, sampling: Sampling, seed: int, ledger: Ledger
) -> dict[str, int]:
    """How many answers to each example `fill` would not ask for again, by example; needs no engine."""
    counts: dict[str, int] = {}
    for batch in _batches(examples):
        asks = {_ask(e, k, system, weights, sampling, seed): e.id for e in batch for k in range(sampling.samples)}
        for ask, generation in ledger.asked(list(asks)).items():
            if generation.outcome is not Outcome.FAILED:
                counts[asks[ask]] = counts.get(asks[ask], 0) + 1
    return counts


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _batch_names(
    examples: Sequence[Example], shared: dict[str, Any], system: str, weights: str, sampling: Sampling, seed: int
) -> tuple[str, str]:
    """A batch by what is asked, and by all that shapes the answers."""
    content = [[e.id, e.prompt] for e in examples]
    name = request_key({"asks": [system, weights, sampling.samples, seed], "content": content} | _settings(sampling))
    return name, request_key({"shared": shared, "batch": name})


def _settings(sampling: Sampling) -> dict[str, Any]:
    return {"temperature": float(sampling.temperature), "max_new_tokens": sampling.max_new_tokens}


def _questions(
    engine: Engine,
    examples: Sequence[Example],
    shared: dict[str, Any],
    system: str,
    weights: str,
    sampling: Sampling,
    seed: int,
) -> Iterator[Question]:
    """What to look up or ask: each prompt encoded once, each sample with key and seed."""
    for example in examples:
        prompt = engine.encode(example)
        digest = hashlib.sha256(canonical_json(prompt).encode("utf-8", "surrogatepass")).hexdigest()
        for number in range(sampling.samples):
            own_seed = request_seed(seed, example.id, number)
            spec = {**shared, "prompt": digest, "sample": number, "seed": own_seed}
            ask = _ask(example, number, system, weights, sampling, seed)
            yield Question(request_key(spec), ask, example, number, own_seed, prompt, spec)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
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
