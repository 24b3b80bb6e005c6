"""Engine `transformers`: a model in this process, sampled through slots."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Literal

from plad.answers.engine import EngineKind, EngineResources, Inspection, Record, fitting
from plad.answers.question import Question, Sampling, Spec
from plad.answers.reply import Reply
from plad.errors import Findings, PolicyError
from plad.records import Example, Outcome

if TYPE_CHECKING:
    from plad.policy.load import Policy
    from plad.sampling.draw import Request

log = logging.getLogger("plad")

TokenIds = tuple[int, ...]


class TransformersEngine(EngineKind):
    """A model in this process."""

    type: Literal["transformers"] = "transformers"

    local: ClassVar[bool] = True

    def check(self, findings: Findings, task: Inspection) -> None:
        """Nothing: the model is looked at as any whose weights are here."""

    def open(self, resources: EngineResources) -> "Transformers":
        """The teacher as it is, or fine-tuned."""
        from plad.policy.load import load_policy

        policy = load_policy(resources.teacher, folder=resources.folder)
        return Transformers(policy, resources.weights, resources.slots)


@dataclass(frozen=True)
class Transformers:
    """A policy as an engine.

    Attributes:
        weights: fingerprint of the policy's weights and tokenizer.
        slots: answers sampled at once; of no influence on them.
    """

    policy: "Policy"
    weights: str
    slots: int

    def spec(self) -> Spec:
        """Weights, prompt format, ends, context and precision."""
        return {
            "engine": "transformers",
            "weights": self.weights,
            "format": self.policy.prompt.describe(),
            "eos": list(self.policy.eos_ids),
            "context": self.policy.context,
            "dtype": str(self.policy.dtype).removeprefix("torch."),
        }

    def encode(self, example: Example) -> TokenIds:
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

    def answer(self, questions: Iterable[Question[TokenIds]], sampling: Sampling, record: Record) -> None:
        """Sample every answer, `slots` at once; half as many where the GPU's memory doesn't suffice.

        Raises:
            PolicyError: the model's logits are not finite, or half the slots don't fit either.
        """
        import torch

        from plad.sampling.draw import Request
        from plad.sampling.sample import sample

        pending: dict[str, Question[TokenIds]] = {}
        asked = fitting(questions, record, len, lambda n: self.policy.fits(n, sampling.max_new_tokens))

        def requests(first: Iterable[Question[TokenIds]]) -> Iterator[Request]:
            for q in chain(first, asked):
                pending[q.key] = q
                yield Request(q.key, q.prompt, sampling.max_new_tokens, sampling.temperature, q.seed)

        def finish(request: Request, tokens: TokenIds, seconds: float) -> None:
            record(pending.pop(request.key), self._reply(request, tokens, seconds))

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

    def _reply(self, request: "Request", tokens: TokenIds, seconds: float) -> Reply:
        """Empty without text, truncated without an end of sequence."""
        text = self.policy.prompt.decode(tokens)
        ended = Outcome.OK if tokens and tokens[-1] in self.policy.eos_ids else Outcome.TRUNCATED
        outcome = ended if text.strip() else Outcome.EMPTY
        return Reply(outcome, text, tokens, len(request.prompt), len(tokens), seconds=seconds, attempts=0)
