"""Methods side by side, in the shape of the paper's Table 1: quality, what it is worth, and what it cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from plad.evaluate.run import SFT, STUDENT, TEACHER
from plad.report.figures import gap_plot
from plad.report.plots import Plot
from plad.report.tables import Cell, Table, difference_cell, judges_of, metrics_row, results_columns
from plad.report.wording import DASH, METRICS, duration, number, system_name

NOTE = (
    "All students start from the same fine-tuned student and take as many updates on the same prompts. Differences are "
    "paired over prompts, in percentage points, with 95 % intervals; p-values are corrected for the number of methods "
    "(Holm). Time is of training and of sampling in it; memory is the peak while training, models included; tokens are "
    "of the answers learnt from."
)


def methods_table(metrics: Mapping[str, Any]) -> Table | None:
    """Quality, and differences to the SFT student and of the student; None where no method was compared.

    Source: PLaD, Table 1.
    """
    comparison = metrics.get("comparison")
    if not comparison:
        return None
    measures = {k: v for k, v in results_columns([metrics]).items() if k not in ("truncated", "empty")}
    compared = [m for m in measures if m.startswith("win_rate/") or m == "rougeL"]
    systems = [s for s in (TEACHER, SFT, *comparison["methods"], STUDENT) if s in metrics["systems"]]
    rows = []
    for system in systems:
        cells = metrics_row(system_name(system), metrics["systems"][system], measures)
        gains = [_difference(metrics, f"{system} - {SFT}", m) for m in compared]
        lags = [_difference(metrics, f"{STUDENT} - {system}", m) for m in compared]
        rows.append((*cells, *gains, *lags))
    names = {m: METRICS.get(m) or m.partition("/")[2] for m in compared}
    columns = (
        "Method",
        *measures.values(),
        *(f"Minus SFT student, {names[m]}" for m in compared),
        *(f"{system_name(STUDENT)} minus it, {names[m]}" for m in compared),
    )
    return Table("Methods side by side", columns, tuple(rows))


def method_costs_table(metrics: Mapping[str, Any]) -> Table | None:
    """What every method cost; None where none was compared."""
    comparison = metrics.get("comparison")
    if not comparison:
        return None
    systems = [s for s in (*comparison["methods"], STUDENT) if s in metrics["systems"]]
    rows = tuple((Cell(system_name(s)), *_costs(comparison["costs"].get(s, {}))) for s in systems)
    columns = ("Method", "Updates", "Time", "Memory (GB)", "Tokens cached", "Tokens fresh")
    return Table("What the methods cost", columns, rows)


def lead_plots(metrics: Mapping[str, Any]) -> list[Plot]:
    """One figure a judge: the distilled student less each method."""
    methods = (metrics.get("comparison") or {}).get("methods", ())
    pairs = {m: metrics["differences"].get(f"{STUDENT} - {m}", {}) for m in methods}
    plots = []
    for i, judge in enumerate(judges_of(metrics)):
        rows = [(f"minus {system_name(m)}", found.get("win_rate", {}).get(judge, {})) for m, found in pairs.items()]
        title = f"Distilled student minus each method, win rate by judge {judge}"
        plots.append(gap_plot(f"lead-{i}", title, rows))
    return [p for p in plots if p]


def _difference(metrics: Mapping[str, Any], pair: str, measure: str) -> Cell:
    found = metrics["differences"].get(pair)
    if found is None:
        return Cell(DASH)
    kind, _, judge = measure.partition("/")
    e = found["win_rate"].get(judge) if judge else found.get(kind)
    return Cell(DASH) if e is None else difference_cell({**e, "p": e.get("p_holm", e.get("p"))}, 100)


def _costs(cost: Mapping[str, Any]) -> Iterator[Cell]:
    def whole(key: str) -> Cell:
        return Cell(DASH if cost.get(key) is None else f"{cost[key]:,}")

    yield whole("updates")
    yield Cell(DASH if cost.get("seconds") is None else duration(cost["seconds"]))
    yield Cell(number(cost.get("peak_memory"), scale=1e-9, digits=2))
    yield whole("tokens_cached")
    yield whole("tokens_fresh")
