"""Everything a report says, read from the files of a run directory; what is missing is None or empty."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plad.answers.ledger import Ledger
from plad.answers.paid import is_paid, purchases
from plad.data.formats import read_examples_jsonl
from plad.errors import RunDirError
from plad.evaluate.files import read_answers, read_judgements
from plad.records import Example, Judgement
from plad.rundir.manifest import Manifest, read_manifest
from plad.text import redact


@dataclass(frozen=True)
class Facts:
    """A run as its files tell it.

    Attributes:
        name: the directory's name.
        manifest: stages with counts and seconds, versions.
        config: config.resolved.json.
        metrics: eval/metrics.json.
        curves: rows of metrics.jsonl.
        judgements: eval/judgements.parquet.
        test: data/test.jsonl by id.
        answers: eval/answers.jsonl, example id -> system -> {"text", "outcome", "tokens"}.
        paid: what providers answered, see `purchases`.
        missing: files that aren't there.
    """

    name: str
    manifest: Manifest
    config: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    curves: list[dict[str, Any]] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    test: dict[str, Example] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    paid: list[dict[str, Any]] = field(default_factory=list)
    missing: tuple[str, ...] = ()

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Finished stages by name."""
        return self.manifest.model_dump(mode="json")["stages"]

    def counts(self, stage: str) -> Mapping[str, Any]:
        """What a finished stage counted; empty for one that isn't finished."""
        return self.stages.get(stage, {}).get("counts") or {}


def read_facts(path: Path) -> Facts:
    """Read a run directory.

    Raises:
        RunDirError: it holds no run, or one of its files is damaged.
    """
    manifest = read_manifest(path)
    files = {
        "config.resolved.json": _json,
        "eval/metrics.json": _json,
        "metrics.jsonl": _json_lines,
        "eval/judgements.parquet": read_judgements,
        "data/test.jsonl": lambda p: {e.id: e for e in read_examples_jsonl(p)},
        "eval/answers.jsonl": lambda p: {row["id"]: row["answers"] for row in read_answers(p)},
    }
    found: dict[str, Any] = {name: read(path / name) for name, read in files.items() if (path / name).is_file()}
    paid = _paid(path, manifest)
    lacking = [name for name in files if name not in found]
    if paid is None and _asks_providers(found.get("config.resolved.json")):
        lacking.append("readable ledger of answers")
    return Facts(
        name=path.resolve().name,
        manifest=manifest,
        config=found.get("config.resolved.json"),
        metrics=found.get("eval/metrics.json"),
        curves=found.get("metrics.jsonl", []),
        judgements=found.get("eval/judgements.parquet", []),
        test=found.get("data/test.jsonl", {}),
        answers=found.get("eval/answers.jsonl", {}),
        paid=paid or [],
        missing=tuple(lacking),
    )


def _paid(path: Path, manifest: Manifest) -> list[dict[str, Any]] | None:
    """What providers answered this run; None where its ledger is gone or can't be read."""
    try:
        with Ledger(manifest.ledger_file(path), readonly=True) as ledger:
            return without_secrets(purchases(ledger, manifest.owner))
    except RunDirError:
        return None


def _asks_providers(config: Mapping[str, Any] | None) -> bool:
    """Whether a teacher or a judge stands behind an endpoint."""
    config = config or {}
    engine = (config.get("teacher") or {}).get("engine") or {}
    judges = (config.get("evaluate") or {}).get("judges") or ()
    return is_paid(str(engine.get("type", "transformers"))) or any(j.get("type") == "llm" for j in judges)


def without_secrets(value: Any) -> Any:
    """Nested settings or figures whose strings hold nothing that looks like a key or a password."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return {redact(k): without_secrets(v) for k, v in value.items()} if isinstance(value, dict) else value


def _json(file: Path) -> Any:
    try:
        return without_secrets(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as e:
        raise RunDirError(f"damaged ({e})", where=str(file), fix="run its stage again") from None


def _json_lines(file: Path) -> list[dict[str, Any]]:
    """Rows of a log; a last line without its end was being written when a run was killed, and is left out."""
    rows: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError as e:
            raise RunDirError(f"damaged ({e})", where=str(file), fix="run the training stages again") from None
        rows.append(row)
    return rows
