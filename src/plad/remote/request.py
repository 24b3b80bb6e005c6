"""Requests as OpenAI-compatible servers take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from plad.answers.question import Sampling
from plad.config.engines import Endpoint
from plad.records import Message

SentPrompt = str | Sequence[Message]
"""Plain text for completions, or messages for chat."""


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
    body: Mapping[str, JsonValue]
    prompt_bytes: int
    max_new_tokens: int

    @property
    def expected_tokens(self) -> int:
        """What rate limits count: the prompt's tokens, guessed, and the most its answer may have."""
        return self.prompt_bytes // 4 + self.max_new_tokens


def completion_request(
    endpoint: Endpoint, model: str, key: str, prompt: SentPrompt, sampling: Sampling, seed: int | None = None
) -> HttpRequest:
    """A chat completion of messages, or a plain completion of text; `endpoint.body` comes last."""
    asked: dict[str, JsonValue] = {"model": model}
    if isinstance(prompt, str):
        path, asked["prompt"] = "/completions", prompt
        size = _bytes(prompt)
    else:
        messages: list[JsonValue] = [{"role": m["role"], "content": m["content"]} for m in prompt]
        path, asked["messages"] = "/chat/completions", messages
        size = sum(_bytes(message["content"]) + 16 for message in prompt)
    asked |= {endpoint.max_tokens_field: sampling.max_new_tokens, "temperature": float(sampling.temperature)}
    if seed is not None and endpoint.seed_field is not None:
        asked[endpoint.seed_field] = seed % 2**31  # some servers take no larger ones
    body = {name: value for name, value in {**asked, **endpoint.body}.items() if value is not None}
    return HttpRequest(key, path, body, size, sampling.max_new_tokens)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
