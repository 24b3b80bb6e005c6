"""What `plad ledger` shows: counts, tokens, cost and outcomes of the answers that a run got; all of them as parquet."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plad.answers.ledger import Ledger
from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.cli.show import prompts_of
from plad.cli.tables import flat_text
from plad.errors import RunDirError
from plad.records import Outcome
from plad.report.console import table
from plad.rundir.atomic import atomic_file
from plad.rundir.manifest import read_manifest
from plad.text import fold

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROWS = 10_000  # of the parquet file written at once
_SAID = 5  # messages shown
_SUMS = ("answers", "prompt_tokens", "completion_tokens", "estimated", "attempts", "lost")


commands = typer.Typer()


@commands.command()
def ledger(
    run: RunPath,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write all answers to a parquet file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the answers that a run got: outcomes, tokens, cost, requests."""
    with guard():
        if export is not None:
            typer.echo(f"wrote {export_ledger(run, export):,} answers to {export}")
            return
        print_result(ledger_summary(run), as_json, ledger_view)


def ledger_summary(run: Path) -> dict[str, Any]:
    """Answers of a run by system: outcomes, tokens, cost, attempts, and what providers said of those that are missing.

    Where several runs share a ledger, only answers that this run got itself are counted.

    Raises:
        RunDirError: not a run directory, or it holds no answers.
    """
    path, mine = _place(run)
    systems: dict[tuple[str, str], dict[str, Any]] = {}
    with Ledger(path, readonly=True) as ledger:
        for row in ledger.summary(mine):
            _add(systems.setdefault((row["system"], row["engine"]), _empty(row)), row)
        for entry in systems.values():
            entry["said"] = ledger.messages(entry["system"], _SAID)
        total = sum(sum(outcomes.values()) for outcomes in ledger.counts().values())
    return {
        "run": str(run),
        "ledger": str(path),
        "shared": mine is not None,
        "answers_in_ledger": total,
        "systems": [_finished(entry) for entry in systems.values()],
    }


def _place(run: Path) -> tuple[Path, str | None]:
    """The ledger of a run, and the name of its rows where it shares one."""
    manifest = read_manifest(run)
    return manifest.ledger_file(run), manifest.owner


def _empty(row: dict[str, Any]) -> dict[str, Any]:
    named = {"system": row["system"], "engine": row["engine"], "usd": None, "waited": 0.0}
    return {**named, **dict.fromkeys(_SUMS, 0), "outcomes": defaultdict(int), "models": defaultdict(int)}


def _add(entry: dict[str, Any], row: dict[str, Any]) -> None:
    for name in _SUMS:
        entry[name] += row[name]
    entry["outcomes"][row["outcome"]] += row["answers"]
    if row["model"] is not None:
        entry["models"][row["model"]] += row["answers"]
    if row["usd"] is not None:
        entry["usd"] = (entry["usd"] or 0.0) + row["usd"]
    entry["waited"] += row["seconds"] * row["answers"]


def _finished(entry: dict[str, Any]) -> dict[str, Any]:
    waited = entry.pop("waited")
    outcomes = {str(outcome): entry["outcomes"][outcome] for outcome in Outcome if outcome in entry["outcomes"]}
    return {**entry, "outcomes": outcomes, "models": dict(entry["models"]), "seconds": waited / entry["answers"]}


def export_ledger(run: Path, out: Path) -> int:
    """Write a run's answers with their prompts as parquet; returns how many.

    Raises:
        RunDirError: no answers, or `out` exists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists() or out.is_symlink():
        raise RunDirError("exists; nothing is overwritten", where=str(out), fix="give another --export")
    path, mine = _place(run)
    schema = pa.schema(
        [(name, pa.string()) for name in ("key", "system", "example_id")]
        + [("sample", pa.int32()), ("outcome", pa.string()), ("prompt", pa.string()), ("text", pa.string())]
        + [("token_ids", pa.list_(pa.int32())), ("prompt_tokens", pa.int32()), ("completion_tokens", pa.int32())]
        + [("seconds", pa.float64()), ("created", pa.string()), ("spec", pa.string()), ("engine", pa.string())]
        + [("run", pa.string()), ("model", pa.string()), ("cost", pa.float64()), ("estimated", pa.bool_())]
        + [("attempts", pa.int32()), ("lost", pa.int32()), ("message", pa.string())]
    )
    written = 0
    with Ledger(path, readonly=True) as ledger, atomic_file(out) as temporary, pq.ParquetWriter(temporary, schema) as f:
        rows = _rows(ledger, run, mine)
        while part := list(islice(rows, _ROWS)):
            f.write_table(pa.Table.from_pylist(part, schema=schema))
            written += len(part)
    return written


def _rows(ledger: Ledger, run: Path, mine: str | None) -> Iterator[dict[str, Any]]:
    prompts = prompts_of(run)
    for row in ledger.table(mine):
        prompt = prompts.get(row["example_id"])
        text = prompt if prompt is None or isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
        yield {**row, "prompt": text, "token_ids": json.loads(row["token_ids"]), "estimated": bool(row["estimated"])}


def ledger_view(found: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    """Answers by system: outcomes, tokens, cost, attempts, and what providers said."""
    rows = [
        (
            f"{s['system']} ({s['engine']})",
            flat_text({k: f"{v:,}" for k, v in s["outcomes"].items()}),
            f"{s['prompt_tokens']:,} + {s['completion_tokens']:,}",
            "-" if s["usd"] is None else f"{s['usd']:.4f}",
            f"{s['attempts']:,}",
            f"{s['seconds']:.2f}",
        )
        for s in found["systems"]
    ]
    columns = ["system (engine)", "answers", "tokens in + out", "US dollars", "requests", "seconds each"]
    yield table(found["run"], columns, rows, numbers=False)
    if found["shared"]:
        yield f"got by this run; the shared ledger {found['ledger']} holds {found['answers_in_ledger']:,} answers"
    for s in found["systems"]:
        name = s["system"]
        if s["models"]:
            yield f"{name} was served by: " + ", ".join(f"{model} {n:,}" for model, n in s["models"].items())
        if s["estimated"]:
            yield f"{name}: tokens of {s['estimated']:,} answers are estimated, the provider counted none"
        if s["lost"]:
            yield f"{name}: {s['lost']:,} requests brought no answer and may be billed all the same"
        for message in s["said"]:
            yield fold(f"{name}, missing: {message}")
