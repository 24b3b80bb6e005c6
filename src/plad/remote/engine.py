"""Answers of a server that speaks OpenAI's protocol."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plad.answers.engine import Record
from plad.answers.question import Question, Sampling
from plad.answers.reply import Reply
from plad.config.engines import OpenAIEngine
from plad.config.models import PromptSection
from plad.errors import PolicyError
from plad.records import Example, Outcome
from plad.remote.budget import Budget
from plad.remote.client import complete
from plad.remote.http_request import HttpRequest, chat_request, text_request
from plad.remote.limits import Clock, RealClock

if TYPE_CHECKING:
    from plad.remote.jobs import Jobs

log = logging.getLogger("plad")


@dataclass(frozen=True)
class OpenAI:
    """A model behind an endpoint.

    Attributes:
        model: its name there.
        revision: tells the answers apart where a provider changes a model under its name.
        budget: what the run may spend.
        jobs: where batches are written down; needed for mode batch.
        tokenizer: counts a prompt's tokens, where the section names one.
    """

    section: OpenAIEngine
    model: str
    prompt: PromptSection
    revision: str | None = None
    tokenizer: Any = None
    budget: Budget = field(default_factory=Budget)
    clock: Clock = field(default_factory=RealClock)
    jobs: "Jobs | None" = None

    def spec(self) -> dict[str, Any]:
        """Endpoint, model, and how a prompt is put; not the key."""
        return remote_spec(self.section, self.model, self.prompt, self.revision)

    def encode(self, example: Example) -> Any:
        """Messages for the chat API, text for plain completions.

        Raises:
            PolicyError: a conversation can't be put as this API or template wants it.
        """
        prompt, template = example.prompt, self.prompt.template
        if not isinstance(prompt, str):
            if self.section.api == "completions" or template is not None:
                what = "the completions API takes" if self.section.api == "completions" else "prompt.template takes"
                raise PolicyError(
                    f"a conversation, but {what} plain text",
                    where=f"example {example.id}",
                    fix="use api: chat without a template, or rows with plain prompts",
                )
            return [dict(m) for m in prompt]
        text = prompt if template is None else template.replace("{prompt}", prompt)
        if self.section.api == "completions":
            return text
        system = [{"role": "system", "content": self.prompt.system}] if self.prompt.system is not None else []
        return [*system, {"role": "user", "content": text}]

    def request(self, question: Question, sampling: Sampling) -> HttpRequest:
        """A question as it is posted."""
        make: Any = chat_request if self.section.api == "chat" else text_request
        return make(
            self.section,
            question.key,
            self.model,
            question.prompt,
            max_new_tokens=sampling.max_new_tokens,
            temperature=float(sampling.temperature),
            seed=question.seed,
        )

    def answer(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> None:
        """Ask the server, one by one or in batches; see `complete` and `answer_in_batches` for what they raise."""
        fitting = self._fitting(questions, sampling, record)
        if self.section.mode == "batch":
            from plad.remote.batch import answer_in_batches

            assert self.jobs is not None
            facts: dict[str, Any] = {"jobs": self.jobs, "budget": self.budget, "clock": self.clock}
            answer_in_batches(self.section, fitting, lambda q: self.request(q, sampling), record, **facts)
            return
        going = self.jobs.open() if self.jobs is not None else []
        if going:
            log.warning(
                "%d batches of an earlier session are under way at %s: mode: live asks again for what they hold, "
                "mode: batch collects them",
                *(len(going), self.section.base_url),
            )
        pending: dict[str, Question] = {}

        def requests() -> Iterator[HttpRequest]:
            for question in fitting:
                pending[question.key] = question
                yield self.request(question, sampling)

        complete(
            self.section,
            requests(),
            lambda request, reply: record(pending.pop(request.key), reply),
            budget=self.budget,
            clock=self.clock,
        )

    def _fitting(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> Iterator[Question]:
        """The questions that fit the context; the others are settled here."""
        for question in questions:
            too_long = self._too_long(question, sampling)
            if too_long is None:
                yield question
            else:
                record(question, too_long)

    def _too_long(self, question: Question, sampling: Sampling) -> Reply | None:
        if self.tokenizer is None or self.section.context is None:
            return None
        tokens = count_tokens(self.tokenizer, question.prompt)
        if tokens + sampling.max_new_tokens <= self.section.context:
            return None
        return Reply(Outcome.TOO_LONG, prompt_tokens=tokens, attempts=0)


def remote_spec(section: OpenAIEngine, model: str, prompt: PromptSection, revision: str | None) -> dict[str, Any]:
    """Everything about a model behind an endpoint that shapes its answers."""
    return {
        "engine": "openai",
        "endpoint": section.shaping(),
        "model": model,
        "revision": revision,
        "template": prompt.template,
        "system_message": prompt.system,
    }


def count_tokens(tokenizer: Any, prompt: Any) -> int:
    """Tokens of messages or of a text, as a tokenizer with the server's chat template counts them."""
    if isinstance(prompt, str):
        return len(tokenizer.encode(prompt))
    if tokenizer.chat_template is None:
        return sum(len(tokenizer.encode(m["content"], add_special_tokens=False)) for m in prompt)
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
