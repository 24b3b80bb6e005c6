"""Keys and passwords stay out of logs, errors and files: one function takes them out of every text."""

import re

_HIDDEN: set[str] = set()
_SECRET = re.compile(  # a key begins a word: task-summaries holds none, nor does HF_HUB_OFFLINE
    r"(?i:(?<![\w-])sk-[\w-]{8,})|(?<![\w-])hf_\w{8,}|(?i:(?<=bearer ))\S+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def hide(secret: str) -> None:
    """Let `redact` take this very text out too, whatever it looks like."""
    _HIDDEN.add(secret)


def redact(text: str) -> str:
    """`text` without hidden secrets, and without anything that looks like a key or a password."""
    for secret in _HIDDEN:
        text = text.replace(secret, "[redacted]")
    return _SECRET.sub("[redacted]", text)
