"""`plad status`: stages of a run with their counts, and who is working on it; also while it goes on."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.cli.tables import estimate_text, flat_text
from plad.pipeline.stage import NAMES
from plad.report.console import table
from plad.text import fold

if TYPE_CHECKING:
    from pydantic import JsonValue
    from rich.console import RenderableType

    from plad.rundir.manifest import Manifest, Stopped

commands = typer.Typer()


@commands.command()
def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show stages, counts, seconds and versions; also while a run goes on."""
    with guard():
        print_result(read_status(run), as_json, status_view)


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A stage; of one that is not done there are no counts; `state` is done, running, failed, stopped or pending."""

    stage: str
    done: bool
    state: str
    seconds: float = 0.0
    finished: str = ""
    counts: "Mapping[str, JsonValue] | None" = None

    def to_json(self) -> object:
        """What is known of it."""
        known = {"seconds": self.seconds, "finished": self.finished, "counts": self.counts} if self.done else {}
        return {"stage": self.stage, "done": self.done, "state": self.state, **known}


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
        running: who works on it.
        stopped: where and why the last command ended before its end.
        pairs: None before there are any.
        generations: recorded answers by system and outcome.
        latest: the last row of metrics.jsonl.
    """

    run: str
    running: str | None
    stopped: "Stopped | None"
    stages: list[StageStatus]
    pairs: int | None
    generations: dict[str, dict[str, int]]
    latest: "Mapping[str, JsonValue] | None"
    versions: dict[str, str]


def read_status(run: Path) -> Status:
    """What a run directory says of its run.

    Raises:
        RunDirError: not a run directory.
    """
    from plad.rundir.manifest import read_manifest

    manifest = read_manifest(run)
    owner = None if manifest.stopped else _owner(run)  # a command that begins takes back how the last one ended
    return Status(
        run=str(run),
        running=owner,
        stopped=manifest.stopped,
        stages=_stages(manifest, running=owner is not None),
        pairs=_count_pairs(run),
        generations=_count_generations(run, manifest),
        latest=_latest_metrics(run),
        versions=manifest.versions,
    )


def _stages(manifest: "Manifest", *, running: bool) -> list[StageStatus]:
    states = dict.fromkeys(NAMES, "pending")
    if running and (now := next((s for s in NAMES if s not in manifest.stages), None)):
        states[now] = "running"
    elif manifest.stopped:
        states[manifest.stopped.stage] = "failed" if manifest.stopped.why else "stopped"
    return [
        StageStatus(stage, True, "done", record.seconds, record.finished, record.counts)
        if (record := manifest.stages.get(stage))
        else StageStatus(stage, False, state)
        for stage, state in states.items()
    ]


def _owner(run: Path) -> str | None:
    """`pid N on HOST` if that process lives; the lock itself is left alone."""
    lock = run / "run.lock"
    text = lock.read_text(encoding="utf-8", errors="replace") if lock.is_file() else ""
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
    if not (run / "pairs.parquet").exists():
        return None
    from plad.data.parquet import count_rows

    return count_rows(run / "pairs.parquet")


def _count_generations(run: Path, manifest: "Manifest") -> dict[str, dict[str, int]]:
    """Answers in the run's own ledger; those that it got itself, where it shares one."""
    path = manifest.ledger_file(run)
    if not path.exists():
        return {}
    from plad.answers.ledger import Ledger

    with Ledger(path, readonly=True) as ledger:
        return ledger.counts(manifest.owner)


def _latest_metrics(run: Path) -> "Mapping[str, JsonValue] | None":
    """The last whole line of metrics.jsonl."""
    file = run / "metrics.jsonl"
    if not file.exists():
        return None
    with file.open("rb") as f:
        f.seek(max(0, file.stat().st_size - 65_536))
        lines = f.read().decode("utf-8", errors="replace").split("\n")[:-1]
    for line in reversed(lines):
        try:
            row: JsonValue = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            return row
    return None


def status_view(status: Status) -> Iterator["RenderableType | str"]:
    """Stages, counts and versions."""
    rows: list[tuple[str, str, str, str]] = []
    for s in status.stages:
        if s.counts is None:
            rows.append((s.stage, s.state, "", ""))
        else:
            counts = {k: v for k, v in s.counts.items() if k not in ("wrong", "scorer")}
            rows.append((s.stage, s.state, f"{s.seconds:,.1f}", flat_text(counts)))
    yield table(status.run, ["stage", "state", "seconds", "counts"], rows, numbers=False)
    if status.running:
        yield f"in use by {status.running}"
    if (stopped := status.stopped) and stopped.why:
        yield fold(f"{stopped.stage} failed at {stopped.at}: {stopped.why}")
    elif stopped:
        yield f"{stopped.stage} was stopped at {stopped.at}; the same command goes on"
    if status.pairs is not None:
        yield f"pairs: {status.pairs:,}"
    for s in status.stages:
        if s.stage == "pair" and s.counts is not None:
            yield from _wrong_pairs(s.counts)
    for system, outcomes in status.generations.items():
        yield f"answers of {system}: {', '.join(f'{outcome} {n}' for outcome, n in outcomes.items())}"
    if status.latest:
        yield fold(f"latest metrics: {flat_text(status.latest)}")
    if status.versions:
        yield "versions: " + ", ".join(f"{k} {v}" for k, v in status.versions.items())


def _wrong_pairs(counts: Mapping[str, Any]) -> Iterator[str]:
    """Share of pseudo-pairs that the scorer calls wrong, overall and by words of the student's answer."""
    wrong = counts.get("wrong")
    if wrong and wrong["n"]:
        from plad.evaluate.metrics import Estimate

        overall = Estimate.model_validate(wrong)
        bins = {words: Estimate.model_validate(share) for words, share in wrong["by_words"].items()}
        share = f"{estimate_text(overall, 100)} % of {wrong['pairs']:,} judged pairs"
        yield f"wrong pseudo-pairs, by {counts['scorer']['name']}: {share}"
        yield "  by words: " + ", ".join(f"{words} {estimate_text(e, 100)} (n {e.n})" for words, e in bins.items())
