"""What is asked of a model: a set of answers, each with the keys under which it is recorded and found again."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from plad.records import Example

Encoded = TypeVar("Encoded", covariant=True)
Spec = Mapping[str, object]
"""What shapes answers, as JSON; never a secret."""


def canonical_json(value: object) -> str:
    """JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def request_key(spec: Spec) -> str:
    """SHA-256 of a request's canonical JSON."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def request_seed(seed: int, example_id: str, sample: int) -> int:
    """Seed of one request's random stream, from the run's seed, the example and the sample number."""
    digest = hashlib.sha256(canonical_json([seed, example_id, sample]).encode()).digest()
    return int.from_bytes(digest[:8])


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

    def settings(self) -> dict[str, object]:
        """What of it shapes a single answer."""
        return {"temperature": float(self.temperature), "max_new_tokens": self.max_new_tokens}


@dataclass(frozen=True, slots=True)
class Question(Generic[Encoded]):
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
    prompt: Encoded
    spec: Spec


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Which answers are meant, of whatever examples.

    Attributes:
        system: name of the role, under which its answers are shown.
        weights: fingerprint of who answers: with it recorded answers are found without the engine.
        seed: the run's seed.
        also: other fingerprints of the same, under which it may have answered other runs.
    """

    system: str
    weights: str
    sampling: Sampling
    seed: int
    also: tuple[str, ...] = ()

    @classmethod
    def of(cls, system: str, names: tuple[str, ...], sampling: Sampling, seed: int) -> "AnswerSet":
        """The answers of whom several fingerprints may name, by the first of them."""
        return cls(system, names[0], sampling, seed, tuple(n for n in names[1:] if n != names[0]))

    def others(self) -> list["AnswerSet"]:
        """The same answers as other runs name them."""
        return [replace(self, weights=name, also=()) for name in self.also]

    def asks(self, example: Example) -> list[str]:
        """What is asked about an example, one key a sample, made of what is known without a model."""
        fixed = {"system": self.system, "weights": self.weights, "seed": self.seed, **self.sampling.settings()}
        about = {"example": example.id, "prompt": example.prompt}
        return [request_key({**fixed, **about, "sample": number}) for number in range(self.sampling.samples)]

    def batch(self, examples: Sequence[Example]) -> str:
        """The key of all that is asked about several examples."""
        return request_key(
            {
                "asks": [self.system, self.weights, self.sampling.samples, self.seed],
                "content": [[e.id, e.prompt] for e in examples],
                **self.sampling.settings(),
            }
        )

    def questions(self, example: Example, prompt: Encoded, shared: Spec) -> Iterator[Question[Encoded]]:
        """One question a sample.

        Args:
            prompt: as the engine encoded it.
            shared: what shapes every answer: the engine's `spec` and the settings.
        """
        digest = hashlib.sha256(canonical_json(prompt).encode("utf-8", "surrogatepass")).hexdigest()
        for number, ask in enumerate(self.asks(example)):
            seed = request_seed(self.seed, example.id, number)
            spec = {**shared, "prompt": digest, "sample": number, "seed": seed}
            yield Question(request_key(spec), ask, example, number, seed, prompt, spec)
