"""A report as text for a terminal: its verdict and tables in 80 columns, its curves as one line each."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plad.report import console as terminal
from plad.report.page import build_report
from plad.report.parts.blocks import Cell, Report, Table
from plad.report.parts.formatting import number
from plad.report.parts.run_facts import read_facts
from plad.report.sections.methods import NOTE, method_costs_table, methods_table
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


def methods_view(run: Path) -> Iterator["RenderableType | str"]:
    """The tables of compared methods of a run directory, in parts of 80 columns."""
    metrics = read_facts(run).metrics
    tables = [] if metrics is None else [methods_table(metrics), method_costs_table(metrics)]
    if not any(tables):
        yield "no method was compared"
        return
    for table in filter(None, tables):
        yield from _parts(table)
    yield _wrapped(NOTE)


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
