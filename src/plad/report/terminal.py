"""The report as text for a terminal: the page's verdict and tables in 80 columns, its curves as one line each."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plad.report import console as terminal
from plad.report.content import Report, build_report
from plad.report.facts import Facts, read_facts
from plad.report.markdown import METHODS, sections
from plad.report.plots.curves import training_lines
from plad.report.sections.choices import kept_curves
from plad.report.sections.tables import Cell, Table
from plad.report.wording import number

if TYPE_CHECKING:
    from rich.console import RenderableType

_BLOCKS = "▁▂▃▄▅▆▇█"
_GAP, _EDGES = 3, 2  # columns between two columns of a table, and around all of them
_BAR, _CURVE = 24, 20  # columns


def report_view(facts: Facts) -> Iterator["RenderableType | str"]:
    """Verdict, tables and curves of a run."""
    r = build_report(facts)
    yield from map(terminal.clean, _verdict(r))
    for title, table, note in sections(r):
        if table is None or table is r.settings or table is r.versions:
            continue
        if table is r.funnel:
            yield from _funnel(table)
            continue
        yield from _parts(title, table)
        if note:
            yield textwrap.fill(note, terminal.WIDTH)
            yield ""
    yield from _curves(facts)
    if r.missing:
        yield textwrap.fill(f"Left out, because the run has no {', '.join(r.missing)}.", terminal.WIDTH)


def methods_view(run: Path) -> Iterator["RenderableType | str"]:
    """The tables of compared methods of a run directory, in parts of 80 columns."""
    r = build_report(read_facts(run))
    if r.methods is None:
        yield "no method was compared"
        return
    for table in filter(None, (r.methods, r.method_costs)):
        yield from _parts(table.title, table)
    yield textwrap.fill(METHODS, terminal.WIDTH)


def _parts(title: str, table: Table) -> Iterator["RenderableType"]:
    for i, part in enumerate(fit(table)):
        yield terminal.table(
            "" if i else title, part.columns, [[_text(c) for c in row] for row in part.rows], not part.words
        )


def _verdict(r: Report) -> Iterator[str]:
    said = (f"{r.verdict.headline}.".upper(), r.verdict.sentence, *r.verdict.notes, *(f"- {w}" for w in r.warnings))
    for line in (r.name, *said):
        yield textwrap.fill(line, terminal.WIDTH)
    yield ""


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


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


def _funnel(table: Table) -> Iterator["RenderableType"]:
    rows = [
        (step.text, n.text, n.detail, "█" * max(1, round((n.bar or 0) * _BAR)) if n.bar else "")
        for step, n in table.rows
    ]
    yield terminal.table(table.title, ["Step", "Number", "Share", ""], rows, numbers=False)


def _curves(facts: Facts) -> Iterator["RenderableType"]:
    rows = [
        (
            f"{title}: {label}" if label != title.rpartition(": ")[2] else title,
            sparkline(y),
            f"{number(y[0], digits=2)} → {number(y[-1], digits=2)} {axis}",
        )
        for title, axis, lines in training_lines(kept_curves(facts))
        for label, (_, y) in lines.items()
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
