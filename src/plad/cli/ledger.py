"""`plad ledger`: counts, tokens, cost and outcomes of the answers that a run got; all of them as parquet."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plad.answers.ledger import Ledger
from plad.answers.schema import AnswerSums
from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.cli.show import places_of
from plad.errors import RunDirError
from plad.records import Outcome
from plad.report.console import table
from plad.text import fold

if TYPE_CHECKING:
    from rich.console import RenderableType

    from plad.data.parquet import Column

commands = typer.Typer()

_MESSAGES = 5  # shown of a system
_SUMS = ("answers", "prompt_tokens", "completion_tokens", "estimated", "attempts", "lost")
_COLUMNS: "dict[str, Column]" = {
    **dict.fromkeys(("key", "system", "example_id"), "text"),
    "sample": "integer",
    **dict.fromkeys(("outcome", "prompt", "text"), "text"),
    "token_ids": "integers",
    **dict.fromkeys(("prompt_tokens", "completion_tokens"), "integer"),
    "seconds": "number",
    **dict.fromkeys(("created", "spec", "engine", "run", "model"), "text"),
    "cost": "number",
    "estimated": "truth",
    **dict.fromkeys(("attempts", "lost"), "integer"),
    "message": "text",
}


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


@dataclass
class SystemAnswers:
    """The answers of one system by one kind of engine.

    Attributes:
        usd: None where none of them has a price.
        estimated: answers whose tokens the provider didn't count.
        attempts: requests; `lost` of them brought no answer and may be billed all the same.
        waited: seconds of all answers.
        models: answers by the model that served them.
        failures: what was said of answers that are missing, and how often; the most frequent of them.
    """

    system: str
    engine: str
    usd: float | None = None
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    attempts: int = 0
    lost: int = 0
    waited: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    models: Counter[str] = field(default_factory=Counter[str])
    failures: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, row: AnswerSums) -> None:
        """Count a row of the ledger's summary."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + row[name])
        self.outcomes[row["outcome"]] += row["answers"]
        if row["model"] is not None:
            self.models[row["model"]] += row["answers"]
        if row["usd"] is not None:
            self.usd = (self.usd or 0.0) + row["usd"]
        self.waited += row["seconds"] * row["answers"]

    @property
    def seconds(self) -> float:
        """Of one answer."""
        return self.waited / self.answers

    def to_json(self) -> dict[str, object]:
        """All of it, with seconds an answer; outcomes in one order."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "waited"}
        outcomes = {str(outcome): self.outcomes[outcome] for outcome in Outcome if outcome in self.outcomes}
        return {**known, "outcomes": outcomes, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """Answers of a run by system; only those that it got itself where several runs share a ledger."""

    run: str
    ledger: str
    shared: bool
    answers_in_ledger: int
    systems: list[SystemAnswers]


def ledger_summary(run: Path) -> LedgerSummary:
    """Outcomes, tokens, cost and attempts, and what providers said of answers that are missing.

    Raises:
        RunDirError: not a run directory, or it holds no answers.
    """
    path, owner = _place(run)
    systems: dict[tuple[str, str], SystemAnswers] = {}
    with Ledger(path, readonly=True) as opened:
        for row in opened.summary(owner):
            key = row["system"], row["engine"]
            systems.setdefault(key, SystemAnswers(*key)).add(row)
        for entry in systems.values():
            entry.failures = opened.messages(entry.system, _MESSAGES)
        total = sum(sum(outcomes.values()) for outcomes in opened.counts().values())
    return LedgerSummary(str(run), str(path), owner is not None, total, list(systems.values()))


def _place(run: Path) -> tuple[Path, str | None]:
    """The ledger of a run, and the name of its rows where it shares one."""

    from plad.rundir.manifest import read_manifest

    manifest = read_manifest(run)
    return manifest.ledger_file(run), manifest.owner


def export_ledger(run: Path, out: Path) -> int:
    """Write a run's answers with their prompts as parquet; returns how many.

    Raises:
        RunDirError: no answers, or `out` exists.
    """
    from plad.data.parquet import count_rows, write_parquet

    if out.exists() or out.is_symlink():
        raise RunDirError("exists; nothing is overwritten", where=str(out), fix="give another --export")
    path, owner = _place(run)
    with Ledger(path, readonly=True) as opened:
        write_parquet(out, _rows(opened, run, owner), _COLUMNS)
    return count_rows(out)


def _rows(opened: Ledger, run: Path, owner: str | None) -> Iterator[dict[str, object]]:
    places = places_of(run)
    for row in opened.table(owner):
        place = places.get(row["example_id"])
        prompt = None if place is None else place.prompt
        text = prompt if prompt is None or isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
        yield {**row, "prompt": text, "token_ids": json.loads(row["token_ids"]), "estimated": bool(row["estimated"])}


def ledger_view(summary: LedgerSummary) -> Iterator["RenderableType | str"]:
    """Answers by system: outcomes, tokens, cost, attempts, and what providers said."""
    rows = [
        (
            f"{s.system} ({s.engine})",
            ", ".join(f"{outcome} {s.outcomes[outcome]:,}" for outcome in Outcome if outcome in s.outcomes),
            f"{s.prompt_tokens:,} + {s.completion_tokens:,}",
            "-" if s.usd is None else f"{s.usd:.4f}",
            f"{s.attempts:,}",
            f"{s.seconds:.2f}",
        )
        for s in summary.systems
    ]
    columns = ["system (engine)", "answers", "tokens in + out", "US dollars", "requests", "seconds each"]
    yield table(summary.run, columns, rows, numbers=False)
    if summary.shared:
        total = summary.answers_in_ledger
        yield f"got by this run; the shared ledger {summary.ledger} holds {total:,} answers"
    for s in summary.systems:
        if s.models:
            yield f"{s.system} was served by: " + ", ".join(f"{model} {n:,}" for model, n in s.models.items())
        if s.estimated:
            yield f"{s.system}: tokens of {s.estimated:,} answers are estimated, the provider counted none"
        if s.lost:
            yield f"{s.system}: {s.lost:,} requests brought no answer and may be billed all the same"
        for message, n in s.failures.items():
            yield fold(f"{s.system}, missing {n:,}: {message}")
