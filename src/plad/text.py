"""Text made harmless: no control characters, no secrets."""

import re
import unicodedata

FOLDED = 1200  # characters of one text that are shown
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_DIRECTIONS = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_DIRECTIONS}]")
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and marks that draw nothing

_SECRET = re.compile(  # a key begins a word: task-summaries holds none, nor does HF_HUB_OFFLINE
    r"(?i:(?<![\w-])sk-[\w-]{8,})|(?<![\w-])hf_\w{8,}|(?i:(?<=bearer ))\S+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_HIDDEN: set[str] = set()
_LEAST = 8  # letters and digits of a key, and of a part of one
_WORDY = 16  # of a key of nothing but letters, or digits; shorter ones are `none`, `not-needed` or `12345678`
_BETWEEN = re.compile("[^A-Za-z0-9]+")
_REDACTED = "[redacted]"


def clean(text: str) -> str:
    """`text` without escape sequences, control characters and direction marks; lines and tabs stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space, controls, zero-width characters, fillers, selectors."""
    return all(
        c.isspace() or c in _INVISIBLE or unicodedata.category(c) in ("Cf", "Cc") or "\ufe00" <= c <= "\ufe0f"
        for c in text
    )


def fold(text: str, limit: int = FOLDED) -> str:
    """`clean(text)`, cut after `limit` characters with a count of the rest."""
    text = clean(text)
    return text if len(text) <= limit else f"{text[:limit]} [... {len(text) - limit:,} more characters]"


def hide(secret: str) -> None:
    """Let `redact` and `conceal` take this very text out, whatever it looks like."""
    _HIDDEN.add(secret)


def redact(text: str) -> str:
    """`text` for people: without hidden secrets or parts of them, and without what looks like a key or a password."""
    for secret in _HIDDEN:
        text = text.replace(secret, _REDACTED)
    return _without(_SECRET.sub(_REDACTED, text), parts=True)


def conceal(text: str) -> str:
    """`text` for a record: without hidden secrets, whatever stands between their letters, also read backwards."""
    return _without(text, parts=False)


def _without(text: str, *, parts: bool) -> str:
    if not _HIDDEN:
        return text
    bare = _BETWEEN.sub("", text).lower()
    for secret in _HIDDEN:
        forwards = _BETWEEN.sub("", secret).lower()
        least = _WORDY if forwards.isalpha() or forwards.isdigit() else _LEAST
        for form in (forwards, forwards[::-1]) if len(forwards) >= least else ():
            for part in sorted(_parts(bare, form) if parts else {form}, key=len, reverse=True):
                if part in bare:
                    text = re.sub("[^A-Za-z0-9]*".join(part), _REDACTED, text, flags=re.IGNORECASE | re.ASCII)
    return text


def _parts(bare: str, secret: str) -> set[str]:
    """The longest pieces of a secret that stand in a text of letters and digits alone."""
    found: set[str] = set()
    start = 0
    while start + _LEAST <= len(secret):
        if secret[start : start + _LEAST] not in bare:
            start += 1
            continue
        end = start + _LEAST
        while end < len(secret) and secret[start : end + 1] in bare:
            end += 1
        found.add(secret[start:end])
        start += 1
    return found
