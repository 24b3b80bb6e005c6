"""What a server's response means: an answer, a passing failure, a bad prompt, or a reason to stop. Pure functions."""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from plad.records import Outcome
from plad.text import redact

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
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_THINKING = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
OUT_OF_ROOM = "the reasoning used up all tokens: raise max_new_tokens, or switch the thinking off"


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended.

    Attributes:
        text: the answer, stripped of outer white space; empty unless the outcome comes with one.
        token_ids: the answer's tokens, where the engine knows them.
        estimated: the token counts are guessed from the text's length, the provider gave none.
        model: the model that served it, as the provider names it.
        cost: US dollars, None where no price is known.
        seconds: from sending the last attempt to its answer.
        attempts: requests sent for it.
        lost: attempts without an answer that may have been billed all the same.
        message: what the provider said, or a hint.
    """

    outcome: Outcome
    text: str = ""
    token_ids: tuple[int, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    model: str | None = None
    cost: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    lost: int = 0
    message: str | None = None


class Kind(StrEnum):
    """What a response means for what comes next."""

    FINAL = "final"  # the request is settled
    PASSING = "passing"  # worth another try
    RATE_LIMIT = "rate_limit"  # everybody waits, then another try
    STOP = "stop"  # no request of this run can succeed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one response means.

    Attributes:
        reply: of a final one; attempts and seconds are not filled in yet.
        message: what went wrong, without secrets.
        wait: seconds the provider asks everybody to wait.
        lost: it may have been billed though there is no answer.
    """

    kind: Kind
    reply: Reply | None = None
    message: str = ""
    wait: float | None = None
    lost: bool = False


def read_response(status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
    """What a whole response of a completion endpoint means.

    Args:
        headers: with case-insensitive names, or names in lower case.
    """
    if 300 <= status < 400:
        target = headers.get("location", "another place")
        return Verdict(Kind.STOP, message=redact(f"HTTP {status}: base_url redirects to {target[:_SHOWN]}"))
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if 200 <= status < 300:
        return _success(value, body)
    error = _error(value)
    wait = retry_after(headers)
    return _failure(status, error, _said(status, error, body), wait if wait is not None else _retry_delay(error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: a number, an HTTP date or `1m30s`; None where it says nothing usable."""
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    found = _seconds(text)
    if found is not None or not text:
        return found
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


def _retry_delay(error: Mapping[str, Any]) -> float | None:
    """Google's way to say how long to wait: `retryDelay` in the error's details."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str):
            return _seconds(detail["retryDelay"])
    return None


def _error(value: Any) -> dict[str, Any]:
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


def _said(status: int, error: Mapping[str, Any], body: bytes) -> str:
    text = str(error.get("message") or body[: 4 * _SHOWN].decode("utf-8", "replace"))
    return redact(f"HTTP {status}: {' '.join(text.split()) or 'no explanation'}")[:_SHOWN]


def _names(error: Mapping[str, Any]) -> set[str]:
    """The machine-readable names of an error, inner ones included."""
    inner = error.get("innererror")
    values = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    metadata = error.get("metadata")
    flagged = ["moderation"] if isinstance(metadata, dict) and metadata.get("reasons") else []
    return {str(v).lower() for v in [*values, *flagged] if v is not None}


def _failure(status: int, error: Mapping[str, Any], message: str, wait: float | None) -> Verdict:
    names = _names(error)
    if names & _NO_CREDIT or status == 402:
        return Verdict(Kind.STOP, message=message)
    if names & _FILTER:
        return Verdict(Kind.FINAL, Reply(Outcome.FILTERED, message=message))
    if status == 429:
        return Verdict(Kind.RATE_LIMIT, message=message, wait=wait)
    if status in (0, 408, 409, 425) or status >= 500:
        return Verdict(Kind.PASSING, message=message, wait=wait)
    if status in (401, 403, 404, 405, 407, 410):
        return Verdict(Kind.STOP, message=message)
    too_long = _TOO_LONG.search(" ".join([*names, message]))
    return Verdict(Kind.FINAL, Reply(Outcome.TOO_LONG if too_long else Outcome.BAD_REQUEST, message=message))


def _success(value: Any, body: bytes) -> Verdict:
    def unreadable(what: str) -> Verdict:
        return Verdict(Kind.PASSING, message=redact(what)[:_SHOWN], lost=True)

    if value is None:
        start = body[:80].decode("utf-8", "replace")
        return unreadable(f"the answer is no JSON: {start!r}")
    error = _error(value) if not (isinstance(value, dict) and value.get("choices")) else {}
    if error:
        code = error.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        return _failure(status, error, _said(status, error, body), _retry_delay(error))
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return unreadable("the answer holds no choices")
    choice = choices[0]
    message = choice["message"] if isinstance(choice.get("message"), dict) else {"content": choice.get("text")}
    finish = choice.get("finish_reason")
    if finish == "error":
        return unreadable(f"the answer ended in an error: {json.dumps(choice.get('error'))}")
    return Verdict(Kind.FINAL, _reply(value, message, finish))


def _reply(value: Mapping[str, Any], message: Mapping[str, Any], finish: Any) -> Reply:
    given = _text(message.get("content"))
    text = _THINKING.sub("", given, count=1).strip() if given.lstrip().startswith("<think>") else given.strip()
    thought = bool(message.get("reasoning_content") or message.get("reasoning")) or (bool(given.strip()) and not text)
    said = None
    if message.get("refusal"):
        outcome, said = Outcome.REFUSED, str(message["refusal"])[:_SHOWN]
    elif finish == "content_filter":
        outcome = Outcome.FILTERED
    elif not text:
        outcome, said = Outcome.EMPTY, OUT_OF_ROOM if thought and finish == "length" else None
    else:
        outcome = Outcome.TRUNCATED if finish == "length" else Outcome.OK
    usage = value.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(
        outcome,
        text=text if outcome in (Outcome.OK, Outcome.TRUNCATED) else "",
        prompt_tokens=prompt or 0,
        completion_tokens=completion if completion is not None else estimated_tokens(given),
        estimated=prompt is None or completion is None,
        model=value["model"] if isinstance(value.get("model"), str) else None,
        message=redact(said) if said else None,
    )


def _text(content: Any) -> str:
    """The text of a message, whose content may come in parts; parts that hold thoughts are no text."""
    if not isinstance(content, str):
        parts = content if isinstance(content, list) else []
        content = "".join(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))
    return content.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate can't be stored


def is_other_model(asked: str, served: str) -> bool:
    """Whether a server answered with another model than asked for; a longer name of the same is no other."""
    return asked not in served and served not in asked


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def estimated_tokens(text: str) -> int:
    """A guess at a text's tokens where nobody counts them: four UTF-8 bytes each."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)
