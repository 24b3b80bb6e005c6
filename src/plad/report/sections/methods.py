"""Methods side by side, in the shape of the paper's Table 1: quality, what it is worth, and what it cost."""

from plad.evaluate.metrics import Cost, MethodComparison, Metrics
from plad.records import STUDENT, STUDENT_SFT, TEACHER
from plad.report.parts.blocks import BlockGroup, Cell, Plot, Table, Text, group, plots
from plad.report.parts.estimates import count_cell, difference_cell, gap_plot
from plad.report.parts.formatting import DASH, METRICS, duration, number, system_name
from plad.report.parts.measures import corrected, difference_of, judges_of, measures_of, system_cells

_NOTE = (
    "All students start from the same fine-tuned student; how many updates each has taken, and on how many of the "
    "prompts, stands in its row. Differences are paired over prompts, in percentage points, with 95 % intervals. The "
    "p-values here are corrected for the number of methods (Holm); the intervals, and the p-values of other tables, "
    "hold for one comparison alone. Time is of training, of sampling in it, of warm-up before it, and of the teacher's "
    "pass where its logits are stored; memory is the peak in a training step, models included; tokens are of the "
    "answers learnt from."
)


def note(metrics: Metrics) -> str:
    """What is alike in the methods and what isn't."""
    costs = (metrics.comparison or MethodComparison()).costs
    if not costs or any(cost.targets is None for cost in costs.values()):
        return _NOTE
    read = [system_name(system) for system, cost in costs.items() if cost.targets]
    who = f"{', '.join(read)} read" if read else "No method read"
    others = "; the others did not" if 0 < len(read) < len(costs) else ""
    return f"{_NOTE} {who} the human targets of the distillation half{others}."


def methods(metrics: Metrics) -> BlockGroup | None:
    """The compared methods; None where no method was compared."""
    table = methods_table(metrics)
    if table is None:
        return None
    return group(
        "Methods side by side", Text(note(metrics)), plots(lead_plots(metrics)), table, method_costs_table(metrics)
    )


def methods_table(metrics: Metrics) -> Table | None:
    """Quality, and differences to the SFT student; None where no method was compared.

    Source: PLaD, Table 1.
    """
    measures = {k: v for k, v in measures_of([metrics]).items() if k not in ("truncated", "empty")}
    compared = _compared(metrics)
    rows = tuple(
        (
            *system_cells(system_name(system), metrics.systems[system], measures),
            *(_difference(metrics, system, STUDENT_SFT, m) for m in compared),
        )
        for system in _systems(metrics)
    )
    columns = ("Method", *measures.values(), *(f"Minus SFT student, {name}" for name in compared.values()))
    return Table("Methods side by side", columns, rows, mine=system_name(STUDENT)) if rows else None


def method_costs_table(metrics: Metrics) -> Table | None:
    """The distilled student's lead over every method, and what each cost; None where none was compared."""
    costs = (metrics.comparison or MethodComparison()).costs
    compared = _compared(metrics)
    rows = tuple(
        (
            Cell(system_name(system)),
            *(_difference(metrics, STUDENT, system, m) for m in compared),
            *_cost_cells(costs.get(system, Cost())),
        )
        for system in _systems(metrics)
    )
    leads = (f"{system_name(STUDENT)} minus it, {name}" for name in compared.values())
    columns = ("Method", *leads, "Updates", "Prompts", "Time", "Memory (GB)", "Tokens cached", "Tokens fresh")
    title = "The distilled student's lead, and what each method cost"
    return Table(title, columns, rows, mine=system_name(STUDENT)) if rows else None


def lead_plots(metrics: Metrics) -> list[Plot]:
    """One plot a judge: the distilled student less each method."""
    methods = metrics.comparison.methods if metrics.comparison else ()
    drawn = [
        gap_plot(
            f"lead-{i}",
            f"Distilled student minus each method, win rate by judge {judge}",
            [
                (f"minus {system_name(m)}", difference_of(metrics.difference(STUDENT, m), f"win_rate/{judge}"))
                for m in methods
            ],
        )
        for i, judge in enumerate(judges_of(metrics))
    ]
    return [plot for plot in drawn if plot]


def _systems(metrics: Metrics) -> list[str]:
    """The methods, between what they started from and the distilled student; empty where none was compared."""
    if metrics.comparison is None:
        return []
    return [s for s in (TEACHER, STUDENT_SFT, *metrics.comparison.methods, STUDENT) if s in metrics.systems]


def _compared(metrics: Metrics) -> dict[str, str]:
    """Measures whose differences are given, with their names."""
    found = [m for m in measures_of([metrics]) if m.startswith("win_rate/") or m == "rougeL"]
    return {m: METRICS.get(m) or m.partition("/")[2] for m in found}


def _difference(metrics: Metrics, ours: str, theirs: str, measure: str) -> Cell:
    e = difference_of(metrics.difference(ours, theirs), measure)
    return Cell(DASH) if e is None else difference_cell(corrected(e), 100)


def _cost_cells(cost: Cost) -> tuple[Cell, ...]:
    return (
        count_cell(cost.updates),
        count_cell(cost.prompts),
        Cell(DASH if cost.seconds is None else duration(cost.seconds)),
        Cell(number(cost.peak_memory, scale=1e-9, digits=2)),
        count_cell(cost.tokens_cached),
        count_cell(cost.tokens_fresh),
    )
