"""What must be the same in two runs, bit for bit: everything but times, memory, the run's own name and its logs.

Compared as bytes: data, models, tokenizers, pairs, judgements, answers, cards. JSON (manifest, metrics, counts) and
metrics.jsonl: without `VARYING`. Reports: without figures of time and memory. The ledger: every answer under its key.
Not compared: run.log, run.lock, SQLite's own -wal and -shm.
"""

import contextlib
import difflib
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

LEDGER = "generations.sqlite"
LEFT_OUT = re.compile(r"run\.(log|lock)|generations\.sqlite.*")
VARYING = {"seconds", "train_seconds", "peak_memory", "finished", "tokens_per_s", "id", "created", "dir", "taken_from"}
_TIMES = re.compile(
    r"(?:[\w-]+\.)*(?:train\\?_)?seconds [\d.]+(?:, )?|\d+(?:[.,]\d+)* ?(?:s|min|h|MB|GB|tokens/s)\b"
    r"|peak\\?_memory \d+|\| [\d.]+ \||tokens\\?_per\\?_s [\d.]+"
)
_SIZED = re.compile(r"/(made_from|round|metrics)\.json$")  # they hold seconds, so that their sizes vary
_NAME = re.compile(r"\brun(?:\\?_[a-z\d]+)+\b")  # of a run that was moved


def contents(run: Path) -> dict[str, str]:
    """Every compared file with a hash of what must be the same in it."""
    found = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: _digest(path) for name, path in found.items() if not LEFT_OUT.fullmatch(name)}


def _digest(path: Path) -> str:
    try:
        return sha256(_reduced(path)(path.read_bytes())).hexdigest()[:16]
    except (ValueError, UnicodeDecodeError):
        return "damaged " + sha256(path.read_bytes()).hexdigest()[:16]


def _reduced(path: Path) -> Callable[[bytes], bytes]:
    if path.name == "index.html":
        return lambda _: b"as report.md"
    if path.name in ("report.md", "README.md"):
        return lambda raw: _without_times(_NAME.sub("run", raw.decode())).encode()
    if path.name == "config.yaml":
        return lambda raw: re.sub(rb"dir: \S+", b"dir: #", raw)
    if path.name == "metrics.jsonl":
        return lambda raw: b"\n".join(sorted(_json(json.loads(line)) for line in raw.splitlines()))
    if path.name == "COMPLETE":
        return lambda raw: _json({k: v for k, v in json.loads(raw).items() if k != "made_from.json"})
    if path.suffix == ".json":
        return lambda raw: _json(json.loads(raw))
    return lambda raw: raw


def _without_times(text: str) -> str:
    """One mark for all times in a row: of those that are rounded to nothing a report says nothing."""
    return re.sub("#+", "#", _TIMES.sub("#", text))


def differing(one: Path, other: Path) -> str:
    """The first lines in which two files differ, of what is compared."""
    sides = [p.read_bytes() if p.is_file() else b"" for p in (one, other)]
    with contextlib.suppress(ValueError):
        sides = [_reduced(p)(raw) for p, raw in zip((one, other), sides, strict=True)]
    lines = [raw.decode("utf-8", "replace").replace(", ", ",\n").splitlines() for raw in sides]
    return "\n".join(line[:200] for line in list(difflib.unified_diff(*lines, lineterm="", n=0))[:20])


def _json(value: Any) -> bytes:
    return json.dumps(_without(value), sort_keys=True).encode()


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if k not in VARYING}
        return {k: "a size" if _SIZED.search(str(k)) else _without(v) for k, v in kept.items()}
    return [_without(v) for v in value] if isinstance(value, list) else value


Answers = dict[str, tuple[str, str, str, str]]


def answers(ledger: Path) -> Answers | None:
    """Recorded answers by key: system, text, token ids, outcome. None where the ledger can't be read.

    Of a copy: a look must not change what the next command finds.
    """
    if not ledger.exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (LEDGER, f"{LEDGER}-wal"):
            with contextlib.suppress(OSError):
                shutil.copy(ledger.parent / name, Path(folder) / name)
        try:
            with contextlib.closing(sqlite3.connect(Path(folder) / LEDGER)) as db:
                rows = db.execute("SELECT key, system, text, token_ids, outcome FROM generations").fetchall()
        except sqlite3.Error:
            return None
    return {key: (system, str(text), str(ids), outcome) for key, system, text, ids, outcome in rows}


def marks(recorded: Answers | None) -> set[str]:
    """Of the teacher's recorded answers, the questions they answer."""
    return {t.split()[-1] for system, t, _, _ in (recorded or {}).values() if system == "teacher" and t.strip()}
