"""`plad status`: stages of a run with their counts, and who is working on it; also while it goes on."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.cli.tables import estimate_text, flat_text
from plad.pipeline.stage import NAMES
from plad.report.console import table
from plad.rundir.manifest import Manifest, read_manifest
from plad.text import fold

if TYPE_CHECKING:
    from rich.console import RenderableType

commands = typer.Typer()


@commands.command()
def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show stages, counts, seconds and versions; also while a run goes on."""
    with guard():
        print_result(read_status(run), as_json, status_view)


def read_status(run: Path) -> dict[str, Any]:
    """Stages done and pending with their counts, pairs, recorded answers, and who is working on it.

    Raises:
        RunDirError: not a run directory.
    """
    manifest = read_manifest(run)
    done = manifest.stages
    return {
        "run": str(run),
        "running": _owner(run),
        "stages": [
            {"stage": s, "done": s in done}
            | (done[s].model_dump(include={"seconds", "finished", "counts"}) if s in done else {})
            for s in NAMES
        ],
        "pairs": _count_pairs(run),
        "generations": _count_generations(run, manifest),
        "latest": _latest_metrics(run),
        "versions": manifest.versions,
    }


def _owner(run: Path) -> str | None:
    """`pid N on HOST` if that process lives; the lock itself is left alone."""
    lock = run / "run.lock"
    text = lock.read_text() if lock.is_file() else ""
    match = re.fullmatch(r"pid (\d+) on (.+)", text)
    if match is None:
        return None
    if match[2] != socket.gethostname():
        return f"{text} (or was: it is another machine)"
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return text


def _count_pairs(run: Path) -> int | None:
    if not (run / "pairs.parquet").is_file():
        return None
    import pyarrow.parquet as pq

    return pq.read_metadata(run / "pairs.parquet").num_rows


def _count_generations(run: Path, manifest: Manifest) -> dict[str, dict[str, int]]:
    """Answers in the run's own ledger; those that it got itself, where it shares one."""
    path = manifest.ledger_file(run)
    if not path.is_file():
        return {}
    from plad.answers.ledger import Ledger

    with Ledger(path, readonly=True) as ledger:
        return ledger.counts(manifest.owner)


def _latest_metrics(run: Path) -> dict[str, Any] | None:
    """The last whole line of metrics.jsonl."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        return None
    with file.open("rb") as f:
        f.seek(max(0, file.stat().st_size - 65_536))
        lines = f.read().decode("utf-8", errors="replace").split("\n")[:-1]
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return None


def status_view(status: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    """Stages, counts and versions."""
    rows = []
    now = next((s["stage"] for s in status["stages"] if not s["done"]), None) if status["running"] else None
    for stage in status["stages"]:
        if stage["done"]:
            counts = {k: v for k, v in stage["counts"].items() if k not in ("wrong", "scorer")}
            rows.append((stage["stage"], "done", f"{stage['seconds']:,.1f}", flat_text(counts)))
        else:
            rows.append((stage["stage"], "running" if stage["stage"] == now else "pending", "", ""))
    yield table(status["run"], ["stage", "state", "seconds", "counts"], rows, numbers=False)
    if status["running"]:
        yield f"in use by {status['running']}"
    if status["pairs"] is not None:
        yield f"pairs: {status['pairs']:,}"
    yield from _wrong_pairs(next((s["counts"] for s in status["stages"] if s["stage"] == "pair" and s["done"]), {}))
    for system, outcomes in status["generations"].items():
        yield f"answers of {system}: {flat_text(outcomes)}"
    if status["latest"]:
        yield fold(f"latest metrics: {flat_text(status['latest'])}")
    if status["versions"]:
        yield "versions: " + ", ".join(f"{k} {v}" for k, v in status["versions"].items())


def _wrong_pairs(counts: Mapping[str, Any]) -> Iterator[str]:
    """Share of pseudo-pairs that the scorer calls wrong, overall and by words of the student's answer."""
    wrong = counts.get("wrong")
    if wrong and wrong["n"]:
        share = f"{estimate_text(wrong, 100)} % of {wrong['pairs']:,} judged pairs"
        yield f"wrong pseudo-pairs, by {counts['scorer']['name']}: {share}"
        yield "  by words: " + ", ".join(
            f"{k} {estimate_text(s, 100)} (n {s['n']})" for k, s in wrong["by_words"].items()
        )
