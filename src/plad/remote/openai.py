"""Engine `openai`: answers of a server that speaks OpenAI's protocol."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field, JsonValue, model_validator

from plad.answers.engine import EngineKind, EngineResources, Inspection, Record, Sending, fitting
from plad.answers.jobs import Jobs
from plad.answers.question import AnswerSet, Question, Sampling, Spec
from plad.answers.reply import Reply, Tokenizer, count_tokens, without_secrets
from plad.config.base import PACES, PositiveInt
from plad.config.engines import BatchSection, Endpoint
from plad.config.models import PromptSection, TeacherSection
from plad.data.sources import locate
from plad.errors import Findings, PladError, PolicyError, ProviderError
from plad.policy.resolve import cached, resolve_tokenizer
from plad.records import Example, Outcome, Prompt
from plad.remote.batch import Batching, answer_in_batches
from plad.remote.budget import Budget
from plad.remote.client import complete
from plad.remote.limits import Clock, RealClock
from plad.remote.request import HttpRequest, completion_request
from plad.remote.response import parse_json
from plad.remote.transport import HttpResponse, api_key, connect, require_client, send

log = logging.getLogger("plad")

_CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")


class OpenAIEngine(EngineKind, Endpoint):
    """Any server that speaks OpenAI's protocol; `teacher.model` is the model's name there."""

    type: Literal["openai"] = "openai"
    api: Literal["chat", "completions"] = Field(
        default="chat", description="chat: messages, the server applies its chat template; completions: plain text."
    )
    mode: Annotated[Literal["live", "batch"], PACES] = Field(
        default="live",
        description="live: each request by itself; batch: many in a file, answered within a day for less. The answers "
        "are the same to the ledger, so that one mode may finish what the other began.",
    )
    batch: Annotated[BatchSection, PACES] = Field(default=BatchSection(), description="For mode: batch.")
    tokenizer: Annotated[str | None, PACES] = Field(
        default=None,
        description="Folder or hub name of the model's tokenizer: with `context`, prompts that are too long are found "
        "before they are sent.",
    )
    context: Annotated[PositiveInt | None, PACES] = Field(
        default=None, description="Most tokens of prompt and answer together; needs `tokenizer`."
    )

    @model_validator(mode="after")
    def _lengths_need_both(self) -> "OpenAIEngine":
        if (self.tokenizer is None) != (self.context is None):
            raise ValueError("tokenizer and context go together: the one counts what the other limits")
        return self

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars for so many tokens, in a batch at its price; None where no price is known."""
        usd = super().cost(prompt_tokens, completion_tokens)
        return usd * self.price.batch if usd is not None and self.price and self.mode == "batch" else usd

    paid: ClassVar[bool] = True
    prompt_fields: ClassVar[frozenset[str]] = frozenset({"template", "system"})
    behind: ClassVar[str] = "an endpoint"

    @property
    def endpoint(self) -> Endpoint:
        """Itself."""
        return self

    @property
    def path(self) -> str:
        """Of the API, below the base URL."""
        return "/chat/completions" if self.api == "chat" else "/completions"

    @property
    def batches(self) -> BatchSection | None:
        """How requests are handed over as batches; None where each is sent by itself."""
        return self.batch if self.mode == "batch" else None

    def require(self) -> None:
        """The HTTP client and the key.

        Raises:
            MissingExtraError: the client isn't installed.
            ConfigError: the key's environment variable is not set.
        """
        require_client()
        api_key(self)

    def open(self, resources: EngineResources) -> "OpenAI":
        """The model behind the endpoint, with what the run has spent so far."""
        teacher, ledger = resources.teacher, resources.ledger
        engine = OpenAI(self, teacher.model, teacher.prompt, teacher.revision, self._tokenizer(resources.base))
        if ledger is None:
            return engine
        budget, jobs = Budget.of(resources.budget, ledger), Jobs(ledger, self.base_url, "teacher")
        return replace(engine, budget=budget, jobs=jobs)

    def check(self, findings: Findings, task: Inspection) -> None:
        """The client and the key; with `--online` the server, by one request."""
        self.require()
        teacher, how = task.teacher, ", in batches" if self.batches else ""
        findings.add("ok", "teacher", f"{teacher.model} at {self.base_url}, api {self.api}{how}")
        if not task.online:
            what = f"teacher {teacher.model}: that {self.base_url} serves it (--online sends one request)"
            findings.not_checked.append(what)
            return
        example = task.distill[0] if task.distill else Example("probe", "Say yes.")
        engine = OpenAI(self, teacher.model, teacher.prompt, teacher.revision)
        answers = AnswerSet("teacher", "", task.sampling, task.seed)
        reply, context = probe(engine, next(answers.questions(example, engine.encode(example), {})), task.sampling)
        findings.add(
            "ok" if reply.text else "note",
            "teacher: online",
            f"served by {reply.model or teacher.model}, "
            + (f"context {context:,} tokens" if context else "it doesn't tell its context")
            + f", {reply.seconds:.1f} s for {reply.prompt_tokens} + {reply.completion_tokens} tokens, "
            f"outcome {reply.outcome}" + (f" ({reply.message})" if reply.message else ""),
        )
        if context and task.distill is not None:
            what = "teacher: whether all prompts fit its context (name engine.tokenizer and context)"
            findings.not_checked.append(what)

    def sending(self, teacher: TeacherSection, base: Path) -> Sending:
        """Messages or text, counted by the tokenizer where it is on this machine."""
        return Sending(OpenAI(self, teacher.model, teacher.prompt).encode, self._tokenizer(base, only_here=True))

    def _tokenizer(self, base: Path, *, only_here: bool = False) -> Tokenizer | None:
        if self.tokenizer is None:
            return None
        name = locate(self.tokenizer, base)
        folder = _cached(name) if only_here else resolve_tokenizer(name)
        if folder is None:
            return None
        from plad.policy.folder import load_tokenizer

        return cast("Tokenizer", load_tokenizer(folder))


def _cached(name: str) -> Path | None:
    """The folder of a tokenizer that is on this machine."""
    try:
        return Path(name) if Path(name).is_dir() else cached(name, None)
    except PladError:
        return None


@dataclass(frozen=True)
class OpenAI:
    """A model behind an endpoint.

    Attributes:
        model: its name there.
        revision: tells the answers apart where a provider changes a model under its name.
        tokenizer: counts a prompt's tokens, where the section names one.
        budget: what the run may spend.
        jobs: where batches are written down; needed for mode batch.
    """

    section: OpenAIEngine
    model: str
    prompt: PromptSection
    revision: str | None = None
    tokenizer: Tokenizer | None = None
    budget: Budget = field(default_factory=Budget)
    clock: Clock = field(default_factory=RealClock)
    jobs: Jobs | None = None

    def spec(self) -> Spec:
        """Endpoint, model, and how a prompt is put; not the key."""
        return {
            "engine": "openai",
            "endpoint": self.section.shaping(),
            "model": self.model,
            "revision": self.revision,
            "template": self.prompt.template,
            "system_message": self.prompt.system,
        }

    def encode(self, example: Example) -> Prompt:
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
            return prompt
        text = prompt if template is None else template.replace("{prompt}", prompt)
        if self.section.api == "completions":
            return text
        system = self.prompt.system
        before: Prompt = () if system is None else ({"role": "system", "content": system},)
        return (*before, {"role": "user", "content": text})

    def request(self, question: Question[Prompt], sampling: Sampling) -> HttpRequest:
        """A question as it is posted."""
        return completion_request(self.section, self.model, question.key, question.prompt, sampling, question.seed)

    def answer(self, questions: Iterable[Question[Prompt]], sampling: Sampling, record: Record) -> None:
        """Ask the server, one by one or in batches; see `complete` and `answer_in_batches` for what they raise."""
        tokenizer, context = self.tokenizer, self.section.context
        if tokenizer is not None and context is not None:
            room = context - sampling.max_new_tokens
            questions = fitting(questions, record, lambda prompt: count_tokens(tokenizer, prompt), room.__ge__)
        if self.section.batches is not None:
            assert self.jobs is not None

            def request(question: Question[Prompt]) -> HttpRequest:
                return self.request(question, sampling)

            section = self.section
            how = Batching(section, self.section.batches, section.path, request, self.jobs, self.budget, self.clock)
            answer_in_batches(how, questions, record)
            return
        if going := self.jobs.open() if self.jobs is not None else []:
            log.warning(
                "%d batches of an earlier session are under way at %s: mode: live asks again for what they hold, "
                "mode: batch collects them",
                *(len(going), self.section.base_url),
            )
        pending: dict[str, Question[Prompt]] = {}

        def requests() -> Iterator[HttpRequest]:
            for question in questions:
                pending[question.key] = question
                yield self.request(question, sampling)

        def on_reply(request: HttpRequest, reply: Reply) -> None:
            record(pending.pop(request.key), reply)

        complete(self.section, requests(), on_reply, budget=self.budget, clock=self.clock)


def probe(engine: OpenAI, question: Question[Prompt], sampling: Sampling) -> tuple[Reply, int | None]:
    """Ask a question once, as the run will: how that ended, and the tokens of the context, where the server tells them.

    Raises:
        ProviderError: there is no answer: no connection, or a refusal.
    """
    once = engine.section.model_copy(update={"max_attempts": 1})
    replies: list[Reply] = []
    complete(once, [engine.request(question, sampling)], lambda _, reply: replies.append(without_secrets(reply)))
    if replies[0].outcome in (Outcome.FAILED, Outcome.BAD_REQUEST):
        raise ProviderError(
            f"the first request got no answer: {replies[0].message}",
            where=once.base_url,
            fix="check base_url, `model` and the settings of the engine",
        )
    return replies[0], asyncio.run(_context_of(once, engine.model))


async def _context_of(endpoint: Endpoint, model: str) -> int | None:
    """Tokens of a model's context as the server's list of models tells it; None where it doesn't."""
    async with connect(endpoint) as http:
        response = await send(http, endpoint, "GET", "/models")
    if not isinstance(response, HttpResponse) or response.status != 200:
        return None
    listing = parse_json(response.body)
    models = listing.get("data") if isinstance(listing, dict) else None
    for entry in models if isinstance(models, list) else ():
        if isinstance(entry, dict) and entry.get("id") == model:
            return _context_in(entry)
    return None


def _context_in(entry: Mapping[str, JsonValue]) -> int | None:
    meta = entry.get("meta")
    for place in (entry, meta if isinstance(meta, dict) else {}):
        for name in _CONTEXT:
            if type(tokens := place.get(name)) is int and tokens > 0:
                return tokens
    return None
