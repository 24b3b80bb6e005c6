"""One request to an endpoint, to see that it is there and what it is."""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

from plad.answers.question import Question, Sampling
from plad.answers.reply import Reply, Verdict
from plad.config.engines import Endpoint
from plad.errors import ProviderError
from plad.records import Example, Outcome
from plad.remote.client import complete
from plad.remote.engine import OpenAI
from plad.remote.transport import connect, require_client, send

_CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")
_TOKENS = 16  # of the answer


@dataclass(frozen=True, slots=True)
class Probe:
    """What one request found out.

    Attributes:
        reply: how it ended.
        context: tokens of the model's context, where the server tells them.
    """

    reply: Reply
    context: int | None


def probe(engine: OpenAI, example: Example) -> Probe:
    """Ask for one short answer, once.

    Raises:
        ProviderError: there is no answer: no connection, or a refusal.
    """
    once = replace(engine, section=engine.section.model_copy(update={"max_attempts": 1}))
    question = Question("probe", "", example, 0, 0, engine.encode(example), {})
    request = once.request(question, Sampling(0.0, _TOKENS))
    replies: list[Reply] = []
    complete(once.section, [request], lambda _, reply: replies.append(reply))
    if replies[0].outcome in (Outcome.FAILED, Outcome.BAD_REQUEST):
        raise ProviderError(
            f"the first request got no answer: {replies[0].message}",
            where=engine.section.base_url,
            fix="check base_url, `model` and the settings of the engine",
        )
    return Probe(replies[0], context_of(engine.section, engine.model))


def context_of(endpoint: Endpoint, model: str) -> int | None:
    """Tokens of a model's context as the server's list of models tells it; None where it doesn't."""
    require_client()

    async def get() -> tuple[int, dict[str, str], bytes] | Verdict:
        async with connect(endpoint) as http:
            return await send(http, endpoint, "GET", "/models")

    response = asyncio.run(get())
    if isinstance(response, Verdict) or response[0] != 200:
        return None
    try:
        listed = json.loads(response[2])["data"]
        entry = next(m for m in listed if m["id"] == model)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
    return next(_numbers(entry), None)


def _numbers(entry: Any) -> Any:
    meta = entry.get("meta")
    for place in (entry, meta if isinstance(meta, dict) else {}):
        for name in _CONTEXT:
            if isinstance(place.get(name), int):
                yield place[name]
