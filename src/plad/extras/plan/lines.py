"""What each stage still asks for: answers, tokens and dollars, and where the budget would stop it. Pure functions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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

    @property
    def new(self) -> int:
        """Answers still to get."""
        return self.answers - self.held

    def usd(self, endpoint: Endpoint | None) -> tuple[float, float] | None:
        """US dollars, expected and at worst; None where the endpoint has no price."""
        expected = endpoint and endpoint.cost(self.prompt_tokens, self.completion_tokens)
        most = endpoint and endpoint.cost(self.most_prompt_tokens, self.most_completion_tokens)
        return None if expected is None or most is None else (expected, most)


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the budget ends before the run does.

    Attributes:
        limit: `budget.usd` or `budget.tokens`.
        answers: of this line, before it stops.
    """

    limit: str
    line: Line
    answers: int


def budget_stop(
    section: BudgetSection | None,
    lines: Sequence[Line],
    endpoints: Mapping[str, Endpoint],
    spent: tuple[float, int],
    *,
    worst: bool,
) -> Stop | None:
    """Where the budget would stop the run, if answers cost what is expected, or all they can; None where it suffices.

    Args:
        spent: US dollars and tokens that the run has taken already.
    """
    if section is None:
        return None
    usd, tokens = spent
    for line in (line for line in lines if line.place is not None and line.new):
        dollars = line.usd(endpoints[line.place]) if line.place else None
        cost = dollars[worst] if dollars else 0.0
        size = _tokens(line, worst=worst)
        for limit, used, more in (("usd", usd, cost), ("tokens", tokens, size)):
            most = getattr(section, limit)
            if most is not None and used + more > most:
                return Stop(f"budget.{limit}", line, int(line.new * max(0.0, most - used) / more))
        usd, tokens = usd + cost, tokens + size
    return None


def _tokens(line: Line, *, worst: bool) -> int:
    if worst:
        return line.most_prompt_tokens + line.most_completion_tokens
    return line.prompt_tokens + line.completion_tokens


def wall_times(
    lines: Sequence[Line], endpoints: Mapping[str, Endpoint], latency: Mapping[str, float]
) -> Iterator[dict[str, object]]:
    """How long each endpoint is asked at least, by the limit that binds: requests or tokens a minute, or concurrency.

    Of one that is asked in batches their number, and the window in which the provider promises each.

    Args:
        latency: measured seconds an answer, by place.
    """
    for place, endpoint in endpoints.items():
        own = [line for line in lines if line.place == place]
        requests = sum(line.new for line in own)
        if not requests:
            continue
        if endpoint.batches is not None:
            batches = math.ceil(requests / endpoint.batches.max_requests)
            yield {"place": place, "requests": requests, "batches": batches, "window": endpoint.batches.window}
            continue
        # as the client paces them: a prompt's tokens, and the most its answer may have
        tokens = sum(line.prompt_tokens + line.most_completion_tokens for line in own)
        bounds = {
            "rpm": 60 * requests / endpoint.rpm if endpoint.rpm else 0.0,
            "tpm": 60 * tokens / endpoint.tpm if endpoint.tpm else 0.0,
            "concurrency": requests * latency.get(place, 0.0) / endpoint.concurrency,
        }
        by = max(bounds, key=lambda name: bounds[name])
        known = bounds[by] > 0
        yield {
            "place": place,
            "requests": requests,
            "seconds": bounds[by] if known else None,
            "bound_by": by if known else None,
            "latency": latency.get(place),
        }
