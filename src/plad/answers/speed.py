"""How fast answers came, by what the ledger recorded as they did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from plad.answers.ledger import Ledger
from plad.answers.question import Sampling

SHORTEST = 5.0  # seconds of sampling: the ledger knows the second in which an answer ended, so less says too little


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a system's answers came, several of them at once.

    Attributes:
        engine: who answered, by the type of its engine.
        tokens: of the answers.
        seconds: in which at least one answer was under way; pauses between sittings don't count. None where it is too
            short to tell, or nothing was sampled.
        each: median seconds of one answer, with those beside it.
        usd: of all of them; None where no price is known.
    """

    engine: str
    answers: int
    tokens: int
    seconds: float | None
    each: float
    usd: float | None

    @property
    def tokens_a_second(self) -> float | None:
        """Of all answers under way together."""
        return None if self.seconds is None else self.tokens / self.seconds


def speed(
    ledger: Ledger, system: str, answers: Mapping[str, str], sampling: Sampling, run: str | None = None
) -> Speed | None:
    """How fast a system gave these answers; None where the ledger hasn't got them.

    Args:
        answers: example id -> text, as it was evaluated.
        run: whose answers are taken first where several runs that share the ledger got the same text.
    """
    query = (
        "SELECT example_id, text, seconds, created, completion_tokens, cost, engine FROM generations WHERE system = ? "
        "AND sample = 0 AND json_extract(spec, '$.temperature') = ? AND json_extract(spec, '$.max_new_tokens') = ? "
        "ORDER BY run IS ?, rowid"
    )
    rows = ledger.read(query, (system, sampling.temperature, sampling.max_new_tokens, run))
    # the last of an example: the run's own, and of those the latest, where weights changed
    found = {row[0]: row[2:] for row in rows if answers.get(row[0]) == row[1]}
    if not found:
        return None
    seconds, ends, tokens, prices, engines = zip(*found.values(), strict=True)
    spans = [(_epoch(end) - spent, _epoch(end)) for spent, end in zip(seconds, ends, strict=True)]
    busy = covered(spans)
    known = [usd for usd in prices if usd is not None]
    return Speed(
        engine=engines[-1],
        answers=len(found),
        tokens=sum(tokens),
        seconds=busy if busy >= SHORTEST else None,
        each=median(seconds),
        usd=sum(known) if known else None,
    )


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of what spans of time cover together."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _epoch(created: str) -> float:
    return datetime.fromisoformat(created).timestamp()
