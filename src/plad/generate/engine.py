"""Answers of a policy to examples, through the ledger: only what is missing is sampled."""

import contextlib
import hashlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from plad.errors import Interrupted, PolicyError, RunDirError
from plad.generate.ledger import Ledger, canonical_json, request_key
from plad.generate.sample import sample
from plad.generate.sampling import Request
from plad.policy.load import Policy
from plad.progress import Progress
from plad.records import Example, Generation, Outcome

T = TypeVar("T")
_CHUNK = 256  # examples encoded and looked up together


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
class _Asked:
    """One answer to look up or sample."""

    key: str
    ask: str
    example: Example
    sample: int
    seed: int
    prompt: tuple[int, ...]
    spec: dict[str, Any]


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
            "temperature": float(sampling.temperature),
            "max_new_tokens": sampling.max_new_tokens,
            "seed": seed,
        }
    )


def answer(
    policy: Policy,
    examples: Sequence[Example],
    *,
    system: str,
    weights: str,
    sampling: Sampling,
    seed: int,
    slots: int,
    ledger: Ledger,
    progress: Progress | None = None,
) -> list[Generation]:
    """Answer every example, `sampling.samples` times each.

    Each answer is committed to the ledger as it finishes, and what the ledger holds is not sampled again. An answer
    depends on its example, its number and the settings; never on `slots`, or on the other examples and their order.

    Args:
        system: name of the policy's role, under which its answers are shown.
        weights: fingerprint of the policy's weights and tokenizer.
        seed: the run's seed.
        slots: answers sampled at once.
        progress: counts answers and tokens.

    Returns:
        Answers in order of examples, then sample numbers.

    Raises:
        Interrupted: stopped by Ctrl-C or SIGTERM; all finished answers are recorded.
        RunDirError: the ledger can't be written.
        PolicyError: a prompt can't be encoded, or the model's logits are not finite.
    """
    bar = progress or Progress(system, len(examples) * sampling.samples, "answers")
    keys: list[str] = []
    pending: dict[str, _Asked] = {}

    def missing() -> Iterator[Request]:
        for batch in _batches(examples):
            asked = list(_asked(policy, batch, system, weights, sampling, seed))
            found = ledger.get_many([a.key for a in asked])
            ledger.point({a.ask: a.key for a in asked if a.key in found})
            for a in asked:
                keys.append(a.key)
                if a.key in found or a.key in pending:
                    bar.skip()
                elif len(a.prompt) + sampling.max_new_tokens > policy.context:
                    record(a, (), 0.0, Outcome.TOO_LONG)
                else:
                    pending[a.key] = a
                    yield Request(a.key, a.prompt, sampling.max_new_tokens, sampling.temperature, a.seed)

    def record(a: _Asked, tokens: tuple[int, ...], seconds: float, outcome: Outcome | None = None) -> None:
        text = policy.prompt.decode(tokens) if tokens else ""
        ended = _outcome(text, tokens, policy.eos_ids) if outcome is None else outcome
        generation = Generation(a.example.id, a.sample, text, tokens, ended, len(a.prompt))
        ledger.put(a.key, a.ask, system, generation, seconds=seconds, spec=a.spec)
        bar.advance(1, tokens=len(tokens))

    try:
        with _sigterm_interrupts():
            sample(
                policy.model,
                missing(),
                slots=slots,
                eos_ids=policy.eos_ids,
                on_finish=lambda request, tokens, seconds: record(pending.pop(request.key), tokens, seconds),
            )
    except KeyboardInterrupt:
        raise Interrupted(
            f"{system}: stopped; {bar.done:,} of {bar.total:,} answers are recorded",
            fix="the same command continues with the rest",
        ) from None
    return _collect(ledger, keys)


def recorded(
    examples: Sequence[Example], *, system: str, weights: str, sampling: Sampling, seed: int, ledger: Ledger
) -> dict[str, list[Generation]]:
    """The answers that `answer` gave when it was last called with the same arguments, by example; needs no model.

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


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _asked(
    policy: Policy, examples: Sequence[Example], system: str, weights: str, sampling: Sampling, seed: int
) -> Iterator[_Asked]:
    """What to look up or sample for `examples`: each prompt encoded once, each sample with key and seed."""
    shared = {
        "engine": "transformers",
        "weights": weights,
        "format": policy.prompt.describe(),
        "eos": list(policy.eos_ids),
        "context": policy.context,
        "dtype": str(policy.dtype).removeprefix("torch."),
        "temperature": float(sampling.temperature),
        "max_new_tokens": sampling.max_new_tokens,
    }
    for example in examples:
        prompt = tuple(policy.prompt.encode_prompt(example.prompt))
        if not prompt:
            raise PolicyError(
                "the prompt has no tokens",
                where=f"example {example.id}",
                fix="remove the row\nor give `prompt.template` some text around {prompt}",
            )
        digest = hashlib.sha256(canonical_json(prompt).encode()).hexdigest()
        for number in range(sampling.samples):
            own_seed = request_seed(seed, example.id, number)
            spec = {**shared, "prompt": digest, "sample": number, "seed": own_seed}
            ask = _ask(example, number, system, weights, sampling, seed)
            yield _Asked(request_key(spec), ask, example, number, own_seed, prompt, spec)


def _outcome(text: str, tokens: Sequence[int], eos_ids: Sequence[int]) -> Outcome:
    if not text.strip():
        return Outcome.EMPTY
    return Outcome.OK if tokens[-1] in eos_ids else Outcome.TRUNCATED


def _collect(ledger: Ledger, keys: Sequence[str]) -> list[Generation]:
    answers: list[Generation] = []
    for batch in _batches(keys):
        found = ledger.get_many(batch)
        answers.extend(found[key] for key in batch)
    return answers


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
