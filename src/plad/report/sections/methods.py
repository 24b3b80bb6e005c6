"""Methods side by side, in the shape of the paper's Table 1: quality, what it is worth, and what it cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from plad.evaluate.run import SFT, STUDENT, TEACHER
from plad.report.plots.figures import gap_plot
from plad.report.plots.plots import Plot
from plad.report.sections.tables import Cell, Table, difference_cell, judges_of, metrics_row, results_columns
from plad.report.wording import DASH, METRICS, duration, number, system_name

NOTE = (
    "All students start from the same fine-tuned student; how many updates each has taken, and on how many of the "
    "prompts, stands in its row. Differences are paired over prompts, in percentage points, with 95 % intervals. The "
    "p-values here are corrected for the number of methods (Holm); the intervals, and the p-values of other tables, "
    "hold for one comparison alone. Time is of training, of sampling in it, of warm-up before it, and of the teacher's "
    "pass where its logits are stored; memory is the peak in a training step, models included; tokens are of the "
    "answers learnt from."
)


def methods_table(metrics: Mapping[str, Any]) -> Table | None:
    """Quality, and differences to the SFT student; None where no method was compared.

    Source: PLaD, Table 1.
    """
    measures = {k: v for k, v in results_columns([metrics]).items() if k not in ("truncated", "empty")}
    compared = _compared(metrics)
    rows = tuple(
        (
            *metrics_row(system_name(system), metrics["systems"][system], measures),
            *(_difference(metrics, f"{system} - {SFT}", m) for m in compared),
        )
        for system in _systems(metrics)
    )
    columns = ("Method", *measures.values(), *(f"Minus SFT student, {name}" for name in compared.values()))
    return Table("Methods side by side", columns, rows) if rows else None


def method_costs_table(metrics: Mapping[str, Any]) -> Table | None:
    """The distilled student's lead over every method, and what each cost; None where none was compared."""
    costs = (metrics.get("comparison") or {}).get("costs", {})
    compared = _compared(metrics)
    rows = tuple(
        (
            Cell(system_name(system)),
            *(_difference(metrics, f"{STUDENT} - {system}", m) for m in compared),
            *_costs(costs.get(system, {})),
        )
        for system in _systems(metrics)
    )
    leads = (f"{system_name(STUDENT)} minus it, {name}" for name in compared.values())
    columns = ("Method", *leads, "Updates", "Prompts", "Time", "Memory (GB)", "Tokens cached", "Tokens fresh")
    return Table("The distilled student's lead, and what each method cost", columns, rows) if rows else None


def _systems(metrics: Mapping[str, Any]) -> list[str]:
    """The methods, between what they started from and the distilled student; empty where none was compared."""
    comparison = metrics.get("comparison")
    if not comparison:
        return []
    return [s for s in (TEACHER, SFT, *comparison["methods"], STUDENT) if s in metrics["systems"]]


def _compared(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Measures whose differences are given, with their names."""
    found = [m for m in results_columns([metrics]) if m.startswith("win_rate/") or m == "rougeL"]
    return {m: METRICS.get(m) or m.partition("/")[2] for m in found}


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
    yield whole("prompts")
    yield Cell(DASH if cost.get("seconds") is None else duration(cost["seconds"]))
    yield Cell(number(cost.get("peak_memory"), scale=1e-9, digits=2))
    yield whole("tokens_cached")
    yield whole("tokens_fresh")
