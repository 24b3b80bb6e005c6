"""Requests as OpenAI-compatible servers take them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plad.config.engines import Endpoint


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to send.

    Attributes:
        key: the caller's name for it.
        path: below the base URL, such as `/chat/completions`.
        body: the JSON to post.
        prompt_bytes: UTF-8 bytes of its prompt: bounds its tokens.
        max_new_tokens: most tokens of its answer.
    """

    key: str
    path: str
    body: Mapping[str, Any]
    prompt_bytes: int
    max_new_tokens: int

    @property
    def expected_tokens(self) -> int:
        """What rate limits count: the prompt's tokens, guessed, and the most its answer may have."""
        return self.prompt_bytes // 4 + self.max_new_tokens


def chat_request(
    endpoint: Endpoint,
    key: str,
    model: str,
    messages: Iterable[Mapping[str, str]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int | None = None,
) -> HttpRequest:
    """A chat completion; `endpoint.body` comes last."""
    listed = [dict(m) for m in messages]
    size = sum(len(m["content"].encode("utf-8", "replace")) + 16 for m in listed)
    body = _body(endpoint, {"model": model, "messages": listed}, max_new_tokens, temperature, seed)
    return HttpRequest(key, "/chat/completions", body, size, max_new_tokens)


def text_request(
    endpoint: Endpoint,
    key: str,
    model: str,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int | None = None,
) -> HttpRequest:
    """A plain completion; `endpoint.body` comes last."""
    body = _body(endpoint, {"model": model, "prompt": prompt}, max_new_tokens, temperature, seed)
    return HttpRequest(key, "/completions", body, len(prompt.encode("utf-8", "replace")), max_new_tokens)


def _body(
    endpoint: Endpoint, asked: dict[str, Any], max_new_tokens: int, temperature: float, seed: int | None
) -> dict[str, Any]:
    body = {**asked, endpoint.max_tokens_field: max_new_tokens, "temperature": temperature}
    if seed is not None and endpoint.seed_field is not None:
        body[endpoint.seed_field] = seed % 2**31  # some servers take no larger ones
    return {name: value for name, value in {**body, **endpoint.body}.items() if value is not None}
