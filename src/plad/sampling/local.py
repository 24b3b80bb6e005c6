"""Answers of a model in this process."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from plad.answers.engine import Record
from plad.answers.question import Question, Sampling
from plad.answers.reply import Reply
from plad.errors import PolicyError
from plad.policy.load import Policy
from plad.records import Example, Outcome
from plad.sampling.draw import Request
from plad.sampling.sample import sample

log = logging.getLogger("plad")


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
        """Sample every answer, `slots` at once; half as many where the GPU's memory doesn't suffice.

        Raises:
            PolicyError: the model's logits are not finite, or half the slots don't fit either.
        """
        pending: dict[str, Question] = {}
        fitting = self._fitting(questions, sampling, record)

        def requests(first: Iterable[Question]) -> Iterator[Request]:
            for q in chain(first, fitting):
                pending[q.key] = q
                yield Request(q.key, q.prompt, sampling.max_new_tokens, sampling.temperature, q.seed)

        def finish(request: Request, tokens: tuple[int, ...], seconds: float) -> None:
            text = self.policy.prompt.decode(tokens)
            reply = token_reply(text, tokens, len(request.prompt), self.policy.eos_ids, seconds)
            record(pending.pop(request.key), reply)

        def run(slots: int) -> None:
            again = list(pending.values())
            sample(self.policy.model, requests(again), slots=slots, eos_ids=self.policy.eos_ids, on_finish=finish)

        try:
            run(self.slots)
        except torch.OutOfMemoryError:
            half = max(1, self.slots // 2)
            log.warning("out of memory while sampling: going on with %d answers at once", half)
        else:
            return
        torch.cuda.empty_cache()  # past the handler, which held what the failed step had allocated
        try:
            run(half)
        except torch.OutOfMemoryError as e:
            raise PolicyError(
                f"out of memory while sampling, also with {half} answers at once",
                where="generate.slots",
                fix="lower generate.slots or generate.max_new_tokens, or use a smaller dtype\n"
                "then run the same command again: every recorded answer is kept",
            ) from e

    def _fitting(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> Iterator[Question]:
        for q in questions:
            if self.policy.fits(len(q.prompt), sampling.max_new_tokens):
                yield q
            else:
                record(q, Reply(Outcome.TOO_LONG, prompt_tokens=len(q.prompt), attempts=0))


def token_reply(
    text: str, tokens: tuple[int, ...], prompt_tokens: int, eos_ids: Iterable[int], seconds: float
) -> Reply:
    """The reply that sampled tokens make: empty without text, truncated without an end of sequence."""
    if not text.strip():
        outcome = Outcome.EMPTY
    else:
        outcome = Outcome.OK if tokens[-1] in eos_ids else Outcome.TRUNCATED
    return Reply(outcome, text, tokens, prompt_tokens, len(tokens), seconds=seconds, attempts=0)
