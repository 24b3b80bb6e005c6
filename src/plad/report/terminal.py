"""A report as text for a terminal: its verdict and tables in 80 columns, its curves as one line each."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from plad.evaluate.deciding import Decision, decision
from plad.evaluate.metrics import FILE as METRICS_FILE
from plad.evaluate.metrics import Estimate
from plad.records import STUDENT_SFT
from plad.report import console as terminal
from plad.report.page import build_report
from plad.report.parts.blocks import Cell, Report, Table
from plad.report.parts.estimates import share_cell
from plad.report.parts.formatting import DASH, METRICS, flatten, interval, number, order_systems, system_name
from plad.report.parts.run_facts import RunFacts, read_facts
from plad.report.sections.methods import method_costs_table, methods_table, note
from plad.report.sections.training import chosen_by
from plad.text import redact

if TYPE_CHECKING:
    from rich.console import RenderableType

_BLOCKS = "▁▂▃▄▅▆▇█"
_GAP, _EDGES = 3, 2  # columns between two columns of a table, and around all of them
_BAR, _CURVE = 24, 20  # columns


def report_view(run: Path) -> Iterator["RenderableType | str"]:
    """Verdict, tables and curves of a run directory."""
    report = build_report(read_facts(run))
    yield from map(terminal.clean, _verdict(report))
    left: list[str] = []
    for table, text in report.told():
        if table is None:
            left.append(_wrapped(text))
        elif not table.lookup:
            yield from _bars(table) if table.look == "bars" else _parts(table)
            yield from (_wrapped(text), "") if text else ()
    yield from _curves(report)
    yield from left


def ending_view(run: Path, config: Sequence[str]) -> Iterator["RenderableType | str"]:
    """What a run ends with: the verdict, one row a system, what decided, and what to do next.

    Args:
        config: the YAML file of the run, and the settings that came after it.
    """
    facts = read_facts(run)
    if facts.metrics is None:
        return
    decides = decision(facts.metrics)
    yield ""
    yield from map(terminal.clean, _verdict(build_report(facts)))
    yield from _parts(systems_table(decides))
    decided = f"The verdict was decided by {decides.measure.words}."
    yield _wrapped(" ".join(filter(None, (decided, chosen_by(facts)))))
    yield from ("", "next:")
    for command, why in next_steps(run, config, facts):
        yield Text(f"  {redact(command)}", no_wrap=True, overflow="ignore")
        yield f"      {why}"
    yield ""


def systems_table(decides: Decision) -> Table:
    """One row a system: the figure that decides, ROUGE-L, words, and the share of answers cut off."""
    systems = decides.metrics.systems
    order = order_systems(systems)
    figures: dict[str, dict[str, Cell]] = {
        "Win rate": {s: _shown(systems[s].win_rate.get(decides.judge or "")) for s in order},
        f"Beats {system_name(STUDENT_SFT)}": {s: _shown(decides.duel(STUDENT_SFT, s)) for s in order},
        METRICS["rougeL"]: {s: _shown(systems[s].rougeL) for s in order},
        METRICS["words"]: {s: Cell(number(e.value if (e := systems[s].words) else None)) for s in order},
        "Cut off": {s: share_cell(systems[s].truncated) for s in order},
    }
    shown = {name: cells for name, cells in figures.items() if any(cell.text != DASH for cell in cells.values())}
    rows = tuple((Cell(system_name(s)), *(cells[s] for cells in shown.values())) for s in order)
    return Table("On the test set, in % (95 % interval)", ("System", *shown), rows)


def _shown(e: Estimate | None) -> Cell:
    """A share with its interval; that it is of few prompts stands above the table."""
    return Cell(DASH) if e is None else Cell(number(e.value, scale=100), interval(e, scale=100))


def next_steps(run: Path, config: Sequence[str], facts: RunFacts) -> Iterator[tuple[str, str]]:
    """Commands to paste after a run, each with what it is for."""
    page, others = run / "report/index.html", _evaluated_beside(run)
    if page.is_file():
        opener = _OPENERS.get(sys.platform, "xdg-open")
        words = [opener] if shutil.which(opener) else ["python", "-m", "webbrowser"]
        yield shlex.join([*words, str(page)]), "the page: figures, plots, every example"
    yield shlex.join(["plad", "show", str(run), "judgements"]), "single answers beside their opponents"
    compared = facts.metrics is not None and facts.metrics.comparison is not None
    if others:
        yield shlex.join(["plad", "compare", str(run), str(others[0])]), "beside another run"
    elif compared or dict(flatten(facts.config)).get("distill.objective.type") == "sft":
        yield shlex.join(["plad", "compare", str(run)]), "all figures and differences, in this terminal"
    else:
        why = "trains SeqKD from the same student: is it the preferences that help?"
        yield shlex.join(["plad", "compare", *config, "--methods", "seqkd"]), why
    if (run / "student/config.json").is_file():
        yield shlex.join(["plad", "export", str(run), "--to", "merged"]), "the student as one model folder"


_OPENERS = {"darwin": "open", "win32": "explorer"}


def _evaluated_beside(run: Path) -> list[Path]:
    """Other evaluated runs in the same folder, the latest first."""
    found = [p.parent.parent for p in run.parent.glob(f"*/{METRICS_FILE}") if p.parent.parent.name != run.name]
    return sorted(found, key=lambda p: (p / METRICS_FILE).stat().st_mtime, reverse=True)


def methods_view(run: Path) -> Iterator["RenderableType | str"]:
    """The tables of compared methods of a run directory, in parts of 80 columns."""
    metrics = read_facts(run).metrics
    tables = [] if metrics is None else [methods_table(metrics), method_costs_table(metrics)]
    if metrics is None or not any(tables):
        yield "no method was compared"
        return
    for table in filter(None, tables):
        yield from _parts(table)
    yield _wrapped(note(metrics))


def _wrapped(text: str) -> str:
    return textwrap.fill(redact(text), terminal.WIDTH)


def _parts(table: Table) -> Iterator["RenderableType"]:
    for i, part in enumerate(fit(table)):
        title = "" if i else table.title
        yield terminal.table(title, part.columns, [[_text(c) for c in row] for row in part.rows], not part.words)


def _verdict(report: Report) -> Iterator[str]:
    v = report.verdict
    for line in (report.name, f"{v.headline}.".upper(), v.sentence, *v.notes, *(f"- {w}" for w in report.warnings)):
        yield _wrapped(line)
    yield ""


def _text(cell: Cell) -> str:
    return redact(f"{cell.text} ({cell.detail})" if cell.detail else cell.text)


def fit(table: Table, width: int = terminal.WIDTH) -> list[Table]:
    """A table as one or several that are no wider than `width`, the first column in each.

    A table of words stays one: its cells may be broken.
    """
    if table.words:
        return [table]
    widths = [
        max(*(len(w) for w in name.split()), *(len(_text(row[i])) for row in table.rows))
        for i, name in enumerate(table.columns)
    ]
    groups: list[list[int]] = [[]]
    for i in range(1, len(widths)):
        if groups[-1] and widths[0] + sum(widths[k] + _GAP for k in (*groups[-1], i)) > width - _EDGES:
            groups.append([])
        groups[-1].append(i)
    names = [textwrap.fill(name, w, break_long_words=False) for name, w in zip(table.columns, widths, strict=True)]
    return [Table(table.title, tuple(names[i] for i in (0, *group)), _columns(table, (0, *group))) for group in groups]


def _columns(table: Table, chosen: Sequence[int]) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(row[i] for i in chosen) for row in table.rows)


def _bars(table: Table) -> Iterator["RenderableType"]:
    rows = [
        (step.text, n.text, n.detail, "█" * max(1, round((n.bar or 0) * _BAR)) if n.bar else "")
        for step, n in table.rows
    ]
    yield terminal.table(table.title, [*table.columns, "Share", ""], rows, numbers=False)


def _curves(report: Report) -> Iterator["RenderableType"]:
    rows = [
        (
            f"{plot.title}: {label}" if label != plot.title.rpartition(": ")[2] else plot.title,
            sparkline(y),
            f"{number(y[0], digits=2)} → {number(y[-1], digits=2)} {plot.unit}",
        )
        for plot in report.plots
        for label, (_, y) in plot.curves.items()
    ]
    if rows:
        yield terminal.table("Training", ["Curve", "", "First → last"], rows, numbers=False)


def sparkline(values: Sequence[float], width: int = _CURVE) -> str:
    """Values as blocks of eight heights, each the mean of its share of the curve."""
    n = min(width, len(values))
    parts = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(p) / len(p) for p in parts]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((m - low) * scale)] for m in means)
