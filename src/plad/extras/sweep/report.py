"""What a sweep found: a table for the terminal, and report/index.html and report.md with a figure a setting."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from plad.config.extras import SweepRange
from plad.extras.sweep import study as studies
from plad.extras.sweep.space import Space
from plad.extras.sweep.study import Study, TrialResult
from plad.judges.measure import Measure
from plad.report.console import table
from plad.report.html import render
from plad.report.markdown import escape, table_text
from plad.report.parts.blocks import Cell, Code, Plot, Report, ReportSection, Table, Text, VerdictBox, plots
from plad.report.parts.drawing import Axes
from plad.report.parts.formatting import DASH, duration, number, span
from plad.rundir.atomic import write_text
from plad.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

METRICS = {"win_rate": "Win rate", "rougeL": "ROUGE-L"}
_STATES = {"COMPLETE": "done", "RUNNING": "unfinished", "FAIL": "failed", "WAITING": "waiting", "PRUNED": "stopped"}


@dataclass(frozen=True)
class SweepSummary:
    """What a report of a sweep says.

    Attributes:
        best: name of the best trial, None before the first is finished.
        command: evaluates the best trial on the test rows.
    """

    headline: str
    notes: tuple[str, ...]
    trials: Table
    best: str | None
    command: str | None


def summarize(
    study: Study, space: Space, place: Callable[[int], list[str]], measure: Measure | None = None
) -> SweepSummary:
    """Words and table of a sweep as it stands; trials from the best to the worst, then the others.

    Args:
        place: from a trial's number to the overrides that say where it is kept.
        measure: what trials are compared by, where it is to be said in words.
    """
    metric, best = space.section.metric, studies.best(study)
    done = sorted(studies.finished(study), key=lambda t: (-t.value, t.number))
    rest = [t for t in studies.results(study) if t.state.name not in ("COMPLETE", "WAITING")]
    waiting = studies.wanted_trials(study, space.section) - len(done) - len(rest)
    keys = [k for k in space.section.space if any(k in t.settings for t in (*done, *rest))]
    columns = ("Trial", METRICS[metric] + " (%)", *(_short(k, keys) for k in keys), "Time", "")
    trials = Table("Trials", columns, tuple(_row(t, metric, keys) for t in (*done, *rest)))
    notes = [f"{waiting} trials are still to come; the same command continues."] if waiting > 0 else []
    notes += [f"Trials are compared by {measure.words}, of their best weights on validation."] if measure else []
    if best is None:
        return SweepSummary("No trial is finished yet.", tuple(notes), trials, None, None)
    rows = best.figures.get("n")
    notes.append(
        f"The best of several figures on the same validation set{f' of {rows} rows' if rows else ''} flatters its "
        "trial: only the test rows, which no trial has seen, say how good it is."
    )
    settings = ", ".join(f"{k} {_value(v)}" for k, v in best.settings.items())
    value = number(best.value, scale=100)
    headline = f"Best of {len(done)} trials: {METRICS[metric]} {value} % on validation, with {settings}."
    command = ["plad", "run", str(space.path), *space.overrides, *best.overrides, *place(best.number)]
    return SweepSummary(headline, tuple(notes), trials, str(best.number), shlex.join(command))


def _short(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted name that no other setting has."""
    parts = key.split(".")
    ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
    return next(e for e in ends if sum(k == e or k.endswith(f".{e}") for k in keys) == 1)


def _value(text: str) -> str:
    """A value as a reader wants it: a section as its type and what differs from the defaults."""
    value: float | str | bool | list[object] | dict[str, object] | None = json.loads(text)
    if isinstance(value, dict):
        fields = sorted(value.items(), key=lambda item: item[0] != "type")
        return ", ".join(str(v) if k == "type" else f"{k} {v}" for k, v in fields)
    return f"{value:.4g}" if isinstance(value, float) else text.strip('"')


def _row(trial: TrialResult, metric: str, keys: Sequence[str]) -> tuple[Cell, ...]:
    figures, seconds = trial.figures, trial.figures.get("seconds")
    same = trial.same_as
    note = f"same as trial {same}" if same is not None else trial.error or _STATES[trial.state.name]
    value = Cell(
        number(trial.value, scale=100) if figures else DASH,
        span(figures.get("low"), figures.get("high"), scale=100) if metric == "win_rate" else "",
    )
    time = Cell(DASH if seconds is None or same is not None else duration(seconds))
    cells = (Cell(_value(trial.settings[k])) if k in trial.settings else Cell(DASH) for k in keys)
    return (Cell(str(trial.number)), value, *cells, time, Cell(note))


def write_report(
    folder: Path, study: Study, space: Space, place: Callable[[int], list[str]], measure: Measure | None = None
) -> SweepSummary:
    """Write report/index.html and report/report.md; returns what they say."""
    summary = summarize(study, space, place, measure)
    drawn = plots(_plots(study, space))
    next_step = "Evaluates the best trial on the test rows; nothing that is done is done again."
    sections = [
        ReportSection("plots", "Trials", "", (drawn,)) if drawn else None,
        ReportSection("trials", "All trials", "", (replace(summary.trials, mine=summary.best or ""),)),
        ReportSection("next", "Next", "", (Text(next_step, tone=""), Code(summary.command)))
        if summary.command
        else None,
    ]
    verdict = VerdictBox("", summary.headline.removesuffix("."), notes=summary.notes)
    page = render(Report("sweep", folder.name, verdict, tuple(filter(None, sections))))
    text = [
        f"# {escape(folder.name)}",
        escape(summary.headline),
        *map(escape, summary.notes),
        table_text(summary.trials),
    ]
    text += [f"```sh\n{summary.command}\n```"] if summary.command else []
    write_text(folder / "report/index.html", page)
    write_text(folder / "report/report.md", "\n\n".join(text) + "\n")
    return summary


def _plots(study: Study, space: Space) -> list[Plot]:
    """The figure over trials with the best so far, and the figure over each setting's values."""
    done = studies.finished(study)
    if not done:
        return []
    axis = f"{METRICS[space.section.metric]}, %"
    numbers, values = [t.number for t in done], [100 * t.value for t in done]
    so_far = [max(values[: i + 1]) for i in range(len(values))]

    def history(axes: Axes) -> None:
        axes.plot(numbers, so_far, drawstyle="steps-post", label="best so far")
        axes.plot(numbers, values, "o", label="trial")
        axes.set_xlabel("trial")
        axes.set_ylabel(axis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)

    drawn = [Plot("history", "Trials in order", f"best so far: {so_far[-1]:.1f} %", 2.5, history)]
    for i, (key, spread) in enumerate(space.section.space.items()):
        points = [(t.settings[key], 100 * t.value) for t in done if key in t.settings]
        if points:
            best = max(points, key=lambda pair: pair[1])
            alt = f"best at {_value(best[0])}: {best[1]:.1f} %"
            drawn.append(Plot(f"setting-{i}", key, alt, 2.3, partial(_scatter, key, axis, spread, points)))
    return drawn


def _scatter(key: str, axis: str, spread: object, points: Sequence[tuple[str, float]], axes: Axes) -> None:
    """Draw the figures of trials over the values of a setting."""
    figures = [y for _, y in points]
    if isinstance(spread, SweepRange):
        axes.plot([float(x) for x, _ in points], figures, "o")
        if spread.log:
            axes.set_xscale("log")
    else:
        places = list(dict.fromkeys(sorted((x for x, _ in points), key=_order)))
        axes.plot([places.index(x) for x, _ in points], figures, "o")
        axes.set_xticks(range(len(places)), [_value(p)[:24] for p in places])
        axes.margins(x=0.2)
    axes.set_xlabel(key)
    axes.set_ylabel(axis)


def _order(text: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    try:
        return False, float(text), ""
    except ValueError:
        return True, 0.0, text


def sweep_view(summary: SweepSummary) -> Iterator["RenderableType | str"]:
    """The trials of a sweep, the best, and how to go on with it."""
    rows = [[f"{c.text} [{c.detail}]" if c.detail else c.text for c in row] for row in summary.trials.rows]
    yield table(summary.trials.title, summary.trials.columns, rows)
    yield clean(summary.headline)
    yield from (clean(note) for note in summary.notes)
    if summary.command:
        yield clean(summary.command)
