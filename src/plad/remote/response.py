"""What a server's response means: an answer, a passing failure, a bad prompt, or a reason to stop. Pure functions."""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum

from pydantic import JsonValue

from plad.answers.reply import MOST_TOKENS, Reply, estimated_tokens
from plad.records import Outcome
from plad.text import redact

JsonObject = Mapping[str, JsonValue]

_SHOWN = 500  # characters kept of what a provider says
_NO_CREDIT = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
    "account_deactivated",
}
_FILTER = {"content_filter", "content_policy_violation", "moderation", "responsibleaipolicyviolation"}
_TOO_LONG = re.compile(r"context_length_exceeded|maximum context length|context size|exceed_context_size", re.I)
_NO_SETTING = {"unsupported_parameter", "unsupported_value", "unknown_parameter"}
_NO_PARAMETER = re.compile(r"Unsupported (?:parameter|value): ")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_THINKING = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
OUT_OF_ROOM = "the reasoning used up all tokens: raise max_new_tokens, or switch the thinking off"


class Meaning(StrEnum):
    """What a response means for what comes next."""

    FINAL = "final"  # the request is settled
    PASSING = "passing"  # worth another try
    RATE_LIMIT = "rate_limit"  # everybody waits, then another try
    STOP = "stop"  # no request of this run can succeed


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt at a request went.

    Attributes:
        reply: of a final one; attempts and seconds are not filled in yet.
        message: what went wrong, without secrets.
        wait: seconds the provider asks everybody to wait.
        lost: it may have been billed though there is no answer.
    """

    meaning: Meaning
    reply: Reply | None = None
    message: str = ""
    wait: float | None = None
    lost: bool = False


def read_response(status: int, headers: Mapping[str, str], body: bytes) -> Attempt:
    """What a whole response of a completion endpoint means.

    Args:
        headers: with case-insensitive names, or names in lower case.
    """
    try:
        return _meaning(status, headers, _strict_json(body), body)
    except RecursionError:
        odd = "is nested too deeply"
    except OddError as e:
        odd = str(e)
    return failed(f"the answer {odd}") if 200 <= status < 300 else _meaning(status, headers, None, body)


def failed(why: str) -> Attempt:
    """A whole response that no honest server sends: asked again now, it would be billed again."""
    return Attempt(Meaning.FINAL, Reply(Outcome.FAILED, lost=1, message=redact(why)[:_SHOWN]))


def _meaning(status: int, headers: Mapping[str, str], value: JsonValue, body: bytes) -> Attempt:
    if 300 <= status < 400:
        target = headers.get("location", "another place")
        return Attempt(Meaning.STOP, message=redact(f"HTTP {status}: base_url redirects to {target[:_SHOWN]}"))
    if 200 <= status < 300:
        return _success(value, body)
    error = _error(value)
    wait = retry_after(headers)
    return _failure(status, error, _message(status, error, body), wait if wait is not None else _retry_delay(error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: a number, an HTTP date or `1m30s`; None where it says nothing usable."""
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    seconds = _seconds(text)
    if seconds is not None or not text:
        return seconds
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:  # the server's own clock, where it tells it: ours may be wrong
        now = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        now = time.time()
    return max(0.0, until - now)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        match = _DURATION.fullmatch(text.strip())
        if match is None or not any(match.groups()):
            return None
        h, m, s, ms = (float(g or 0) for g in match.groups())
        value = 3600 * h + 60 * m + s + ms / 1000
    return value if math.isfinite(value) and value >= 0 else None


def _retry_delay(error: JsonObject) -> float | None:
    """Google's way to say how long to wait: `retryDelay` in the error's details."""
    delays = [detail.get("retryDelay") for detail in objects(error.get("details"))]
    return next((_seconds(delay) for delay in delays if isinstance(delay, str)), None)


def _error(value: JsonValue) -> JsonObject:
    """The error of a body; some servers wrap it in a list, some give a mere text, FastAPI calls it `detail`."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return {}
    error = value.get("error", value.get("detail"))
    if isinstance(error, dict):
        return error
    if error is not None:
        return {"message": error if isinstance(error, str) else json.dumps(error)}
    return {"message": value["message"]} | value if isinstance(value.get("message"), str) else {}


def _message(status: int, error: JsonObject, body: bytes) -> str:
    text = _storable(str(error.get("message") or body[: 4 * _SHOWN].decode("utf-8", "replace")))
    return redact(f"HTTP {status}: {' '.join(text.split()) or 'no explanation'}")[:_SHOWN]


def _names(error: JsonObject) -> set[str]:
    """The machine-readable names of an error, inner ones included."""
    values = [error.get("code"), error.get("type"), as_object(error.get("innererror")).get("code")]
    flagged = ["moderation"] if as_object(error.get("metadata")).get("reasons") else []
    return {str(v).lower() for v in [*values, *flagged] if v is not None}


def _failure(status: int, error: JsonObject, message: str, wait: float | None) -> Attempt:
    names = _names(error)
    if names & _NO_CREDIT or status == 402:
        return Attempt(Meaning.STOP, message=message)
    if names & _NO_SETTING or _NO_PARAMETER.search(message):
        return Attempt(Meaning.STOP, message=message)
    if names & _FILTER:
        return Attempt(Meaning.FINAL, Reply(Outcome.FILTERED, message=message))
    if status == 429:
        return Attempt(Meaning.RATE_LIMIT, message=message, wait=wait)
    if status in (0, 408, 409, 425) or status >= 500:
        return Attempt(Meaning.PASSING, message=message, wait=wait)
    if status in (401, 403, 404, 405, 407, 410):
        return Attempt(Meaning.STOP, message=message)
    too_long = _TOO_LONG.search(" ".join([*names, message]))
    return Attempt(Meaning.FINAL, Reply(Outcome.TOO_LONG if too_long else Outcome.BAD_REQUEST, message=message))


def _success(value: JsonValue, body: bytes) -> Attempt:
    def unreadable(what: str) -> Attempt:
        return Attempt(Meaning.PASSING, message=redact(what)[:_SHOWN], lost=True)

    if value is None:
        start = body[:80].decode("utf-8", "replace")
        return unreadable(f"the answer is no JSON: {start!r}")
    if not as_object(value).get("choices") and (error := _error(value)):
        code = error.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        return _failure(status, error, _message(status, error, body), _retry_delay(error))
    choices = _list(as_object(value).get("choices"))
    if not choices or not isinstance(choice := choices[0], dict):
        return unreadable("the answer holds no choices")
    message = choice.get("message")
    finish = choice.get("finish_reason")
    if finish == "error":
        return unreadable(f"the answer ended in an error: {json.dumps(choice.get('error'))}")
    content = message if isinstance(message, dict) else {"content": choice.get("text")}
    return Attempt(Meaning.FINAL, _reply(as_object(value), content, finish))


def _reply(value: JsonObject, message: JsonObject, finish: JsonValue) -> Reply:
    given = _text(message.get("content"))
    text = _THINKING.sub("", given, count=1).strip() if given.lstrip().startswith("<think>") else given.strip()
    thought = bool(message.get("reasoning_content") or message.get("reasoning")) or (bool(given.strip()) and not text)
    hint = None
    if message.get("refusal"):
        outcome, hint = Outcome.REFUSED, _storable(str(message["refusal"]))[:_SHOWN]
    elif finish == "content_filter":
        outcome = Outcome.FILTERED
    elif not text:
        outcome, hint = Outcome.EMPTY, OUT_OF_ROOM if thought and finish == "length" else None
    else:
        outcome = Outcome.TRUNCATED if finish == "length" else Outcome.OK
    counts = as_object(value.get("usage"))
    prompt, completion = (_count(counts, name) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(
        outcome,
        text=text if outcome in (Outcome.OK, Outcome.TRUNCATED) else "",
        prompt_tokens=prompt or 0,
        completion_tokens=completion if completion is not None else estimated_tokens(given),
        estimated=prompt is None or completion is None,
        model=_storable(model)[:_SHOWN] if isinstance(model := value.get("model"), str) else None,
        message=redact(hint) if hint else None,
    )


def _text(content: JsonValue) -> str:
    """The text of a message, whose content may come in parts; parts that hold thoughts are no text."""
    if not isinstance(content, str):
        parts = [part.get("text") for part in objects(content)]
        content = "".join(part for part in parts if isinstance(part, str))
    return _storable(content)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate can't be stored


def _count(counts: JsonObject, name: str) -> int | None:
    value = counts.get(name)
    if value is None or (type(value) is int and 0 <= value <= MOST_TOKENS):
        return value
    raise OddError(f"gives {str(value)[:40]!r} as {name}")


class OddError(ValueError):
    """What no honest server sends."""


def _strict_json(text: bytes) -> JsonValue:
    """The value that a text holds; None where it is no JSON.

    Raises:
        OddError: a key stands twice, or a number has thousands of digits.
        RecursionError: it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_no_twice)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except OddError:
        raise
    except ValueError:
        raise OddError("holds a number of thousands of digits") from None


def _no_twice(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise OddError("holds a key twice")
    return value


def parse_json(text: bytes) -> JsonValue:
    """The value that a text holds; None where it is no JSON, or odd."""
    try:
        return _strict_json(text)
    except (OddError, RecursionError):
        return None


def as_object(value: JsonValue) -> JsonObject:
    """The value, where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else []


def objects(value: JsonValue) -> list[JsonObject]:
    """The objects of a list; none where it is no list."""
    return [item for item in _list(value) if isinstance(item, dict)]
