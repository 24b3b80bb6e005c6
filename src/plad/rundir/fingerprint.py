"""Hashes of settings and files, and what differs between settings."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue


def fingerprint(value: object) -> str:
    """Stable hash of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def as_json(value: Mapping[str, object]) -> dict[str, JsonValue]:
    """A mapping as it comes back from a JSON file."""
    return json.loads(json.dumps(value, default=str))


def differences(old: JsonValue, new: JsonValue, key: str = "", *, named: Callable[[str], str] = str) -> Iterator[str]:
    """`a.b 1 -> 2` for everything in which two nested values differ; `named` says what a key is called."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name, named=named)
    elif old != new:
        yield f"{named(key)} {json.dumps(old)} -> {json.dumps(new)}"
