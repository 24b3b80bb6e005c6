"""What each stage still asks for: answers, tokens and dollars, and where the budget would stop it. Pure functions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from plad.config.engines import BudgetSection, Endpoint


@dataclass(frozen=True, slots=True)
class Line:
    """Answers of one system to one split in one stage; tokens and dollars are those of what is not recorded yet.

    Attributes:
        place: where the config names the endpoint that is paid; None for what is computed here.
        answers: all of them; `held` of them are recorded already.
        prompt_tokens, completion_tokens: expected.
        most_prompt_tokens, most_completion_tokens: at worst.
        basis: where the expected length of an answer comes from.
        usd, most_usd: US dollars, expected and at worst; None where the endpoint has no price.
        read_tokens: of prompts that a model here reads: once for all answers to a prompt.
    """

    stage: str
    system: str
    split: str
    place: str | None
    answers: int
    held: int
    prompt_tokens: int
    completion_tokens: int
    most_prompt_tokens: int
    most_completion_tokens: int
    basis: str
    usd: float | None = None
    most_usd: float | None = None
    read_tokens: int = 0

    @property
    def new(self) -> int:
        """Answers still to get."""
        return self.answers - self.held

    def priced(self, endpoint: Endpoint) -> "Line":
        """The same with what an endpoint takes for it."""
        expected = endpoint.cost(self.prompt_tokens, self.completion_tokens)
        most = endpoint.cost(self.most_prompt_tokens, self.most_completion_tokens)
        return replace(self, usd=expected, most_usd=most)

    def to_json(self) -> dict[str, object]:
        """All of it, `new` included."""
        return {**asdict(self), "new": self.new}


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the budget ends before the run does.

    Attributes:
        limit: `budget.usd` or `budget.tokens`.
        answers: of so many of this stage and system, those before it stops.
    """

    limit: str
    stage: str
    system: str
    answers: int
    of: int


def budget_stop(section: BudgetSection, lines: Sequence[Line], spent: tuple[float, int], *, worst: bool) -> Stop | None:
    """Where the budget would stop the run, if answers cost what is expected, or all they can; None where it suffices.

    Args:
        spent: US dollars and tokens that the run has taken already.
    """
    usd, tokens = spent
    for line in (line for line in lines if line.place is not None and line.new):
        cost = (line.most_usd if worst else line.usd) or 0.0
        size = line.most_prompt_tokens if worst else line.prompt_tokens
        size += line.most_completion_tokens if worst else line.completion_tokens
        for name, most, used, more in (("usd", section.usd, usd, cost), ("tokens", section.tokens, tokens, size)):
            if most is not None and used + more > most:
                answers = int(line.new * max(0.0, most - used) / more)
                return Stop(f"budget.{name}", line.stage, line.system, answers, line.new)
        usd, tokens = usd + cost, tokens + size
    return None


@dataclass(frozen=True, slots=True)
class PacedTime:
    """How long an endpoint is asked at least, by the limit that binds: requests or tokens a minute, or concurrency.

    Attributes:
        seconds, bound_by: None where neither limits nor a latency are known.
        latency: measured seconds an answer.
    """

    place: str
    requests: int
    seconds: float | None
    bound_by: str | None
    latency: float | None


@dataclass(frozen=True, slots=True)
class BatchTime:
    """In how many batches an endpoint is asked, and in which time the provider promises each."""

    place: str
    requests: int
    batches: int
    window: str


def wall_times(
    lines: Sequence[Line], endpoints: Mapping[str, Endpoint], latency: Mapping[str, float]
) -> Iterator[PacedTime | BatchTime]:
    """How long each endpoint is asked.

    Args:
        latency: measured seconds an answer, by place.
    """
    for place, endpoint in endpoints.items():
        paid = [line for line in lines if line.place == place]
        requests = sum(line.new for line in paid)
        if not requests:
            continue
        if (batches := endpoint.batches) is not None:
            yield BatchTime(place, requests, math.ceil(requests / batches.max_requests), batches.window)
            continue
        # as the client paces them: a prompt's tokens, and the most its answer may have
        tokens = sum(line.prompt_tokens + line.most_completion_tokens for line in paid)
        bounds = {
            "rpm": 60 * requests / endpoint.rpm if endpoint.rpm else 0.0,
            "tpm": 60 * tokens / endpoint.tpm if endpoint.tpm else 0.0,
            "concurrency": requests * latency.get(place, 0.0) / endpoint.concurrency,
        }
        by = max(bounds, key=lambda name: bounds[name])
        known = bounds[by] > 0
        yield PacedTime(place, requests, bounds[by] if known else None, by if known else None, latency.get(place))
