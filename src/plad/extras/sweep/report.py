"""What a sweep found: a table for the terminal, and report/index.html and report.md with a figure a setting."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plad.config.sweep import SweepRange
from plad.extras.sweep import study as studies
from plad.extras.sweep.space import Space
from plad.report.console import table
from plad.report.html import render
from plad.report.markdown import escape, table_text
from plad.report.parts.blocks import Cell, Code, Plot, Report, Section, Table, Text, Verdict, plots
from plad.report.parts.formatting import DASH, duration, number, span
from plad.rundir.directory import write_text
from plad.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


def settings_of(trial: Any) -> dict[str, str]:
    """Setting -> value as written in an override."""
    overrides: list[str] = trial.user_attrs.get("overrides", [])
    return dict(o.split("=", 1) for o in overrides)


def summarize(study: Any, space: Space, place: Callable[[int], list[str]]) -> SweepSummary:
    """Words and table of a sweep as it stands; trials from the best to the worst, then the others.

    Args:
        place: from a trial's number to the overrides that say where it is kept.
    """
    metric = space.section.metric
    best = studies.best(study)
    trials = study.get_trials(deepcopy=False)
    done = sorted(studies.finished(study), key=lambda t: (-t.value, t.number))
    rest = [t for t in trials if t not in done and t.state.name != "WAITING"]
    waiting = studies.wanted_trials(study, space.section) - len(done) - len(rest)
    keys = [k for k in space.section.space if any(k in settings_of(t) for t in (*done, *rest))]
    columns = ("Trial", METRICS[metric] + " (%)", *(_short(k, keys) for k in keys), "Time", "")
    rows = tuple(_row(t, metric, keys) for t in (*done, *rest))
    if best is None:
        return SweepSummary(
            "No trial is finished yet.", _notes(None, waiting), Table("Trials", columns, rows), None, None
        )
    value = number(best.value, scale=100)
    settings = ", ".join(f"{k} {_value(v)}" for k, v in settings_of(best).items())
    return SweepSummary(
        f"Best of {len(done)} trials: {METRICS[metric]} {value} % on validation, with {settings}.",
        _notes(best, waiting),
        Table("Trials", columns, rows),
        str(best.number),
        _command(best, space, place),
    )


def _notes(best: Any | None, waiting: int) -> tuple[str, ...]:
    notes = [f"{waiting} trials are still to come; the same command continues."] if waiting > 0 else []
    if best is not None:
        rows = best.user_attrs["figures"].get("n")
        many = f" of {rows} rows" if rows else ""
        notes.append(
            f"The best of several figures on the same validation set{many} flatters its trial: only the test rows, "
            "which no trial has seen, say how good it is."
        )
    return tuple(notes)


def _short(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted name that no other setting has."""
    parts = key.split(".")
    ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
    return next(e for e in ends if sum(k == e or k.endswith(f".{e}") for k in keys) == 1)


def _value(text: str) -> str:
    """A value as a reader wants it: a section as its type and what differs from the defaults."""
    value = json.loads(text)
    if isinstance(value, dict):
        return ", ".join(str(v) if k == "type" else f"{k} {v}" for k, v in sorted(value.items(), key=_type_first))
    return f"{value:.4g}" if isinstance(value, float) else text.strip('"')


def _type_first(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] != "type", item[0]


def _row(trial: Any, metric: str, keys: Sequence[str]) -> tuple[Cell, ...]:
    figures = trial.user_attrs.get("figures", {})
    settings = settings_of(trial)
    same, error = trial.user_attrs.get("same_as"), trial.user_attrs.get("error")
    note = f"same as trial {same}" if same is not None else error or _STATES[trial.state.name]
    value = Cell(
        number(trial.value, scale=100) if figures else DASH,
        span(figures.get("low"), figures.get("high"), scale=100) if metric == "win_rate" else "",
    )
    time = Cell(duration(figures["seconds"]) if figures and same is None else DASH)
    cells = (Cell(_value(settings[k])) if k in settings else Cell(DASH) for k in keys)
    return (Cell(str(trial.number)), value, *cells, time, Cell(note))


def _command(best: Any, space: Space, place: Callable[[int], list[str]]) -> str:
    parts = [*space.overrides, *best.user_attrs["overrides"], *place(best.number)]
    return shlex.join(["plad", "run", str(space.path), *parts])


def write_report(folder: Path, study: Any, space: Space, place: Callable[[int], list[str]]) -> SweepSummary:
    """Write report/index.html and report/report.md; returns what they say."""
    summary = summarize(study, space, place)
    drawn, next_step = (
        plots(_plots(study, space)),
        "Evaluates the best trial on the test rows; nothing that is done is done again.",
    )
    sections = [
        Section("plots", "Trials", "", (drawn,)) if drawn else None,
        Section("trials", "All trials", "", (replace(summary.trials, mine=summary.best or ""),)),
        Section("next", "Next", "", (Text(next_step, tone=""), Code(summary.command))) if summary.command else None,
    ]
    verdict = Verdict("", summary.headline.removesuffix("."), notes=summary.notes)
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


def _plots(study: Any, space: Space) -> list[Plot]:
    """The figure over trials with the best so far, and the figure over each setting's values."""
    done = studies.finished(study)
    if not done:
        return []
    axis = f"{METRICS[space.section.metric]}, %"
    numbers, values = [t.number for t in done], [100 * t.value for t in done]
    so_far = [max(values[: i + 1]) for i in range(len(values))]

    def history(axes: "Axes") -> None:
        axes.plot(numbers, so_far, drawstyle="steps-post", label="best so far")
        axes.plot(numbers, values, "o", label="trial")
        axes.set_xlabel("trial")
        axes.set_ylabel(axis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)

    drawn = [Plot("history", "Trials in order", f"best so far: {so_far[-1]:.1f} %", 2.5, history)]
    for i, (key, spread) in enumerate(space.section.space.items()):
        own = [(settings_of(t)[key], 100 * t.value) for t in done if key in settings_of(t)]
        if not own:
            continue

        def scatter(axes: "Axes", own: Any = own, key: str = key, spread: Any = spread) -> None:
            if isinstance(spread, SweepRange):
                axes.plot([float(x) for x, _ in own], [y for _, y in own], "o")
                if spread.log:
                    axes.set_xscale("log")
            else:
                places = list(dict.fromkeys(sorted((x for x, _ in own), key=_order)))
                axes.plot([places.index(x) for x, _ in own], [y for _, y in own], "o")
                axes.set_xticks(range(len(places)), [_value(p)[:24] for p in places])
                axes.margins(x=0.2)
            axes.set_xlabel(key)
            axes.set_ylabel(axis)

        best = max(own, key=lambda pair: pair[1])
        alt = f"best at {_value(best[0])}: {best[1]:.1f} %"
        drawn.append(Plot(f"setting-{i}", key, alt, 2.3, scatter))
    return drawn


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
