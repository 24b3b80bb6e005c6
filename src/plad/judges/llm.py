"""The LLM judge: a model behind an endpoint says which of two answers is better, asked in both orders."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling, request_key
from plad.config.base import PACES, PositiveInt
from plad.config.engines import Endpoint
from plad.config.models import PromptSection
from plad.errors import Findings, PartialResultError, PladError
from plad.judges.base import Asked, Comparison, JudgeKind, JudgeResources
from plad.judges.question import RUBRICS, JudgeQuestion, addresses_judge, ask, read_verdict
from plad.progress import track
from plad.records import Example, Generation, Outcome, Verdict
from plad.remote.budget import Budget
from plad.remote.limits import Clock, RealClock
from plad.remote.openai import OpenAI, OpenAIEngine
from plad.remote.transport import api_key, require_client

_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "verdict": {"type": "string"}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}
_FORMATS: dict[str, dict[str, JsonValue]] = {
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": _SCHEMA},
        }
    },
    "json_object": {"response_format": {"type": "json_object"}},
    "none": {},
}
_CANARIES = 5  # at least
_ENDPOINT = frozenset(OpenAIEngine.model_fields) - {"type", "api", "mode", "batch", "tokenizer", "context", "body"}


class LlmJudge(JudgeKind, Endpoint):
    """Asks a model behind an endpoint which of two answers is better, in both orders."""

    type: Literal["llm"] = "llm"
    model: str = Field(description="The model's name there.")
    revision: str | None = Field(default=None, description="Tells verdicts apart where a provider changes a model.")
    task: Literal["summary", "dialogue"] = Field(
        default="dialogue", description="What makes an answer better: a rubric for summaries or for helpful dialogue."
    )
    rubric: str | None = Field(default=None, min_length=1, description="Your own text in the rubric's place.")
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema", description="How the server is told to reply in JSON; none only asks for it in words."
    )
    temperature: float = Field(default=0.0, ge=0, description="Temperature of the replies.")
    max_new_tokens: PositiveInt = Field(default=512, description="Most tokens of a reply; reasoning counts.")
    max_characters: PositiveInt = Field(
        default=20_000, description="Characters of an answer that the judge sees; what is cut off is counted."
    )
    canary_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the comparisons, and of fewer than 50 five of them, that are asked once more with an "
        "instruction to the judge in the answer that lost: how often it obeys. 0 asks none.",
    )
    max_unjudged: Annotated[float, PACES] = Field(
        default=0.05, ge=0, le=1, description="Share of comparisons without a verdict above which the run fails."
    )

    title: ClassVar[str] = "Language model"

    @property
    def endpoint(self) -> Endpoint:
        """The model's server."""
        return self

    @property
    def criteria(self) -> str:
        """The rubric in use."""
        return self.rubric or RUBRICS[self.task]

    @property
    def name(self) -> str:
        """Shown in tables."""
        return self.model.rpartition("/")[2]

    @property
    def asked(self) -> Asked:
        """Two questions a comparison: the rubric, and then the request with both answers."""
        frame = ask("", "", "", rubric=self.criteria, salt="").messages
        return Asked(f"judge {self.name}", 2, frame, self.max_new_tokens, self.canaries)

    def canaries(self, comparisons: int) -> int:
        """How many of so many comparisons are asked once more with an injected instruction."""
        return min(comparisons, max(_CANARIES, math.ceil(self.canary_share * comparisons))) if self.canary_share else 0

    def inputs(self) -> dict[str, JsonValue]:
        """What its verdicts depend on; canaries shape none, and only another share than the usual is measured anew."""
        usual = self.canary_share == type(self).model_fields["canary_share"].default
        return self.shaping(apart=("canary_share",) if usual else ())

    def check(self, findings: Findings, place: str, rows: Sequence[Example] | None, *, against_target: bool) -> None:
        """The HTTP client and the key; nothing is sent."""
        try:
            require_client()
            api_key(self)
        except PladError as e:
            findings.fail(place, [e])
            return
        findings.add("ok", place, f"llm: {self.model} at {self.base_url}; two questions a comparison")
        findings.not_checked.append(f"{place}: that {self.base_url} answers, and replies in JSON; nothing was sent")

    def open(self, resources: JudgeResources) -> "LlmComparer":
        """Nothing is sent yet.

        Raises:
            ConfigError: the key's environment variable is not set.
            MissingExtraError: the HTTP client isn't installed.
        """
        return LlmComparer(self, resources)


class LlmComparer:
    """Compares two answers by asking a model twice, once in each order.

    Both orders agree: that is the verdict. They disagree: a tie, counted as the work of the position. A reply that is
    no verdict, or none at all, in either order: unjudged. Equal answers tie without a question. An answer that speaks
    to the judge can't win: a verdict in its favour becomes a tie.

    Args:
        resources: what the ledger holds is not asked again; what it has spent counts towards the budget.

    Raises:
        ConfigError: the key's environment variable is not set.
        MissingExtraError: the HTTP client isn't installed.
    """

    def __init__(self, section: LlmJudge, resources: JudgeResources, *, clock: Clock | None = None) -> None:
        require_client()
        api_key(section)
        self.name = section.name
        self._section, self._seed, self._budget = section, resources.seed, resources.budget
        self._open_ledger = resources.open_ledger or (lambda: Ledger(":memory:"))
        body = {**_FORMATS[section.response_format], **section.body}
        engine = OpenAIEngine(**{name: getattr(section, name) for name in _ENDPOINT}, body=body)
        self._engine = OpenAI(engine, section.model, PromptSection(), section.revision, clock=clock or RealClock())
        self._counts: Counter[str] = Counter()

    def compare(
        self,
        examples: Sequence[Example],
        ours: Sequence[str],
        theirs: Sequence[str],
        references: Sequence[Sequence[str]],
    ) -> list[Comparison | None]:
        """One comparison a row, None where it is unjudged; references are not read.

        Raises:
            PartialResultError: more comparisons are unjudged than `max_unjudged` allows.
            ProviderError: the provider refuses the key, the model or the credit, or doesn't answer.
            BudgetError: the next question could pass the run's budget.
            Interrupted: stopped; all replies so far are recorded.
        """
        rows = list(zip(examples, map(self._cut, ours), map(self._cut, theirs), strict=True))
        both = [None if a == b else (self._ask(e, a, b), self._ask(e, b, a)) for e, a, b in rows]
        replies = self._replies([q for pair in both if pair is not None for q in pair])
        comparisons = [
            self._equal() if pair is None else self._verdict(pair, a, b, replies)
            for (_, a, b), pair in zip(rows, both, strict=True)
        ]
        self._require_enough(replies)
        self._measure_obedience([(row, pair[0]) for row, pair in zip(rows, both, strict=True) if pair], replies)
        return comparisons

    def _measure_obedience(
        self, asked: Sequence[tuple[tuple[Example, str, str], JudgeQuestion]], replies: Mapping[str, Generation]
    ) -> None:
        """Ask some questions again with an instruction in the answer that lost (of a tie, in ours) to prefer it."""
        drawn = sorted(asked, key=lambda one: one[1].key)[: self._section.canaries(len(asked))]
        canaries: list[tuple[JudgeQuestion, int]] = []
        for (example, ours, theirs), question in drawn:
            verdict = _read(question, replies[question.key])
            if isinstance(verdict, int):
                wanted = -1 if verdict > 0 else 1
                canaries.append((self._ask(example, ours, theirs, wanted), wanted))
        again = self._replies([question for question, _ in canaries])
        for question, wanted in canaries:
            verdict = _read(question, again[question.key])
            self._counts["canaries"] += isinstance(verdict, int)
            self._counts["obeyed"] += verdict == wanted

    def describe(self) -> dict[str, JsonValue]:
        """What a reader must know to trust the verdicts."""
        c = self._counts
        decided = c["agree"] + c["first"] + c["second"] + c["half"]
        return {
            "type": "llm",
            "model": self._section.model,
            "task": "own" if self._section.rubric else self._section.task,
            "rubric": self._section.criteria,
            "rule": "asked in both orders; disagreement is a tie; a reply without a verdict is unjudged; equal answers "
            "tie without a question; an answer that speaks to the judge can't win",
            "comparisons": c["comparisons"],
            "equal": c["equal"],
            "decided": decided,
            "orders_agree": c["agree"],
            "position_bias": {
                "prefers_first": c["first"],
                "prefers_second": c["second"],
                "tie_in_one_order": c["half"],
                "share": None if not decided else (decided - c["agree"]) / decided,
            },
            "unjudged": dict(self._unjudged()),
            "speaks_to_judge": c["addressed"],
            "wins_denied": c["denied"],
            "canaries": c["canaries"],
            "canaries_obeyed": c["obeyed"],
            "truncated": c["truncated"],
            "scored": 2 * c["comparisons"],
        }

    def _unjudged(self) -> dict[str, int]:
        """Comparisons without a verdict, by reason."""
        return {name.partition(":")[2]: n for name, n in sorted(self._counts.items()) if name.startswith("unjudged:")}

    def _cut(self, text: str) -> str:
        limit = self._section.max_characters
        self._counts["truncated"] += len(text) > limit
        return text[:limit].encode("utf-8", "replace").decode()  # a lone surrogate can't be sent

    def _ask(self, example: Example, first: str, second: str, canary: Literal[0, 1, -1] = 0) -> JudgeQuestion:
        salt = f"{self._seed} {self._section.model}"
        return ask(example.prompt, first, second, rubric=self._section.criteria, salt=salt, canary=canary)

    def _equal(self) -> Comparison:
        self._counts["comparisons"] += 1
        self._counts["equal"] += 1
        return Comparison(Verdict.TIE, 0.5, 0.5)

    def _replies(self, questions: Sequence[JudgeQuestion]) -> dict[str, Generation]:
        """The reply to each question, by its key, through the ledger."""
        asked = {q.key: Example(q.key, q.messages) for q in questions}
        if not asked:
            return {}
        sampling = Sampling(self._section.temperature, self._section.max_new_tokens)
        with self._open_ledger() as ledger, track(f"judge {self.name}", len(asked), "verdicts") as progress:
            given = answer(
                replace(self._engine, budget=Budget.of(self._budget, ledger)),
                list(asked.values()),
                AnswerSet(f"judge {self.name}", request_key(self._engine.spec()), sampling, self._seed),
                ledger,
                progress,
            )
        return {g.example_id: g for g in given}

    def _verdict(
        self, pair: tuple[JudgeQuestion, JudgeQuestion], ours: str, theirs: str, replies: dict[str, Generation]
    ) -> Comparison | None:
        """The verdict of both orders together."""
        self._counts["comparisons"] += 1
        first, second = (_read(q, replies[q.key]) for q in pair)
        if isinstance(first, str) or isinstance(second, str):
            self._counts[f"unjudged:{first if isinstance(first, str) else second}"] += 1
            return None
        straight, swapped = first, -second  # of ours
        self._counts[_agreement(straight, swapped)] += 1
        better = straight if straight == swapped else 0
        speaks = (addresses_judge(ours), addresses_judge(theirs))
        self._counts["addressed"] += sum(speaks)
        if (better > 0 and speaks[0]) or (better < 0 and speaks[1]):
            self._counts["denied"] += 1
            better = 0
        points = (better + 1) / 2
        verdict = {1: Verdict.WIN, 0: Verdict.TIE, -1: Verdict.LOSS}[better]
        return Comparison(verdict, points, 1 - points)

    def _require_enough(self, replies: dict[str, Generation]) -> None:
        unjudged = self._unjudged()
        total, missing = self._counts["comparisons"], sum(unjudged.values())
        if missing <= self._section.max_unjudged * total:
            return
        reasons = ", ".join(f"{n} {name}" for name, n in unjudged.items())
        odd = next((g.text for g in replies.values() if g.outcome is Outcome.OK and "{" not in g.text), None)
        raise PartialResultError(
            f"judge {self.name} left {missing} of {total} comparisons unjudged ({reasons})"
            + (f"; it said for example: {odd[:200]!r}" if odd else ""),
            where=f"max_unjudged={self._section.max_unjudged:g}",
            fix="unparsable or truncated: raise max_new_tokens, try another response_format or a stronger judge\n"
            "failed: the same command asks those again\nor raise max_unjudged",
        )


def _read(question: JudgeQuestion, reply: Generation) -> int | str:
    """The verdict, or why there is none."""
    if reply.outcome not in (Outcome.OK, Outcome.TRUNCATED):
        return str(reply.outcome)
    verdict = read_verdict(question, reply.text)
    if verdict is not None:
        return verdict
    return "truncated" if reply.outcome is Outcome.TRUNCATED else "unparsable"


def _agreement(straight: int, swapped: int) -> str:
    """How two orders agree: `agree`, the same place twice (`first`, `second`), or a tie in one of them (`half`)."""
    if straight == swapped:
        return "agree"
    if 0 in (straight, swapped):
        return "half"
    return "first" if straight > 0 else "second"
