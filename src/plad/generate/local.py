"""Answers of a model in this process."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from plad.errors import PolicyError
from plad.generate.engine import Question, Record, Sampling
from plad.generate.reply import Reply
from plad.generate.sample import sample
from plad.generate.sampling import Request
from plad.policy.load import Policy
from plad.records import Example, Outcome


@dataclass(frozen=True)
class Transformers:
    """A policy as an engine.

    Attributes:
        weights: fingerprint of the policy's weights and tokenizer.
        slots: answers sampled at once; of no influence on them.
    """

    policy: Policy
    weights: str
    slots: int

    def spec(self) -> dict[str, Any]:
        """Weights, prompt format, ends, context and precision."""
        return {
            "engine": "transformers",
            "weights": self.weights,
            "format": self.policy.prompt.describe(),
            "eos": list(self.policy.eos_ids),
            "context": self.policy.context,
            "dtype": str(self.policy.dtype).removeprefix("torch."),
        }

    def encode(self, example: Example) -> tuple[int, ...]:
        """Token ids of a prompt.

        Raises:
            PolicyError: it has none.
        """
        prompt = tuple(self.policy.prompt.encode_prompt(example.prompt))
        if not prompt:
            raise PolicyError(
                "the prompt has no tokens",
                where=f"example {example.id}",
                fix="remove the row\nor give `prompt.template` some text around {prompt}",
            )
        return prompt

    def answer(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> None:
        """Sample every answer, `slots` at once.

        Raises:
            PolicyError: the model's logits are not finite.
        """
        pending: dict[str, Question] = {}

        def requests() -> Iterator[Request]:
            for q in questions:
                if not self.policy.fits(len(q.prompt), sampling.max_new_tokens):
                    record(q, Reply(Outcome.TOO_LONG, prompt_tokens=len(q.prompt), attempts=0))
                    continue
                pending[q.key] = q
                yield Request(q.key, q.prompt, sampling.max_new_tokens, sampling.temperature, q.seed)

        def finish(request: Request, tokens: tuple[int, ...], seconds: float) -> None:
            text = self.policy.prompt.decode(tokens)
            reply = token_reply(text, tokens, len(request.prompt), self.policy.eos_ids, seconds)
            record(pending.pop(request.key), reply)

        sample(
            self.policy.model,
            requests(),
            slots=self.slots,
            eos_ids=self.policy.eos_ids,
            on_finish=finish,
        )


def token_reply(
    text: str, tokens: tuple[int, ...], prompt_tokens: int, eos_ids: Iterable[int], seconds: float
) -> Reply:
    """The reply that sampled tokens make: empty without text, truncated without an end of sequence."""
    if not text.strip():
        outcome = Outcome.EMPTY
    else:
        outcome = Outcome.OK if tokens[-1] in eos_ids else Outcome.TRUNCATED
    return Reply(outcome, text, tokens, prompt_tokens, len(tokens), seconds=seconds, attempts=0)
