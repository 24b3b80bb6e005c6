"""The tables of an evaluation: one shape that page, Markdown and terminal print, so that their numbers agree."""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from plad.evaluate.run import SFT, STUDENT
from plad.evaluate.stats import SMALL
from plad.report.sections.verdict import BETTER, WORSE, tone_of
from plad.report.wording import (
    DASH,
    METRICS,
    bin_name,
    harmless,
    interval,
    number,
    order_systems,
    p_value,
    system_name,
)

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell.

    Attributes:
        text: the figure or name.
        detail: what belongs under it in small print.
        tone: `better`, `worse`, or nothing.
        bar: length of a bar behind it, 0 to 1, or None.
    """

    text: str
    detail: str = ""
    tone: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column is the row's name, the others are numbers unless `words` is set."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: bool = False


def estimate_cell(e: Mapping[str, Any] | None, *, scale: float = 1.0, digits: int = 1) -> Cell:
    """A figure with its interval, and with its n where that is small."""
    if not e or e.get("value") is None:
        return Cell(DASH)
    small = f" n = {e['n']}" if e["n"] < SMALL else ""
    return Cell(number(e["value"], scale=scale, digits=digits), interval(e, scale=scale, digits=digits) + small)


def _share(value: float | None) -> Cell:
    return Cell(DASH if value is None else f"{number(value, scale=100)} %")


def judges_of(metrics: Mapping[str, Any]) -> list[str]:
    """All judges, in the order of the config."""
    return list(dict.fromkeys(j for s in metrics["systems"].values() for j in s["win_rate"]))


def results_columns(all_metrics: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What a table of results shows of these evaluations: measure -> name of its column."""
    systems = [s for m in all_metrics for s in m["systems"].values()]
    judges = dict.fromkeys(j for s in systems for j, rate in s["win_rate"].items() if rate["n"])
    rouge = [m for m in ROUGE if any(m in s for s in systems)]
    return {
        **{f"win_rate/{j}": f"Win rate, {j}" for j in judges},
        **{m: METRICS[m] for m in rouge},
        "words": "Words",
        "truncated": "Cut off",
        "empty": "Empty",
    }


def metrics_row(name: str, system: Mapping[str, Any], columns: Iterable[str]) -> tuple[Cell, ...]:
    """One system's figures in the columns of `results_columns`."""
    cells = [Cell(name)]
    for measure in columns:
        kind, _, judge = measure.partition("/")
        if judge:
            cells.append(estimate_cell(system["win_rate"].get(judge), scale=100))
        elif kind in ("truncated", "empty"):
            cells.append(_share(system.get(kind)))
        else:
            cells.append(estimate_cell(system.get(kind), scale=1 if kind == "words" else 100))
    return tuple(cells)


def results_table(metrics: Mapping[str, Any]) -> Table:
    """System by metric, each with its interval."""
    columns = results_columns([metrics])
    systems = metrics["systems"]
    rows = tuple(metrics_row(system_name(s), systems[s], columns) for s in order_systems(systems))
    return Table("Results on the test set", ("System", *columns.values()), rows)


def by_judge(name: str, judge: str, judges: Sized) -> str:
    """A row's name; the judge stands in it where there are several."""
    return name if len(judges) == 1 else f"{name}, {harmless(judge)}"


def judged_table(metrics: Mapping[str, Any]) -> Table:
    """What every win rate was counted from."""
    judges = judges_of(metrics)
    rows = [
        (
            Cell(by_judge(system_name(system), judge, judges)),
            *(Cell(f"{rate[k]:,}") for k in ("n", "wins", "ties", "losses", "unjudged")),
            estimate_cell(rate.get("length_controlled"), scale=100),
            Cell(p_value(rate.get("sign_test_p")).removeprefix("p = ").removeprefix("p ") or DASH),
        )
        for system in order_systems(metrics["systems"])
        for judge, rate in metrics["systems"][system]["win_rate"].items()
    ]
    columns = (
        "System",
        "Judged prompts",
        "Wins",
        "Ties",
        "Losses",
        "Unjudged",
        "At equal length",
        "Sign test p",
    )
    return Table("Comparisons with the human target", columns, tuple(rows))


def agreement_table(metrics: Mapping[str, Any]) -> Table | None:
    """How far any two judges agree, beyond what chance would have it."""
    rows = tuple(
        (
            Cell(pair),
            _share(e.get("same")),
            estimate_cell({"value": e.get("kappa"), **e}, digits=2),
            Cell(f"{e['n']:,}"),
        )
        for pair, e in (metrics.get("agreement") or {}).items()
    )
    columns = ("Judges", "Same verdict", "Cohen's kappa", "Comparisons")
    return Table("How far the judges agree", columns, rows) if rows else None


def by_length_table(metrics: Mapping[str, Any]) -> Table | None:
    """What distillation gained, by the words of the distilled student's answer.

    Source: PLaD, Figure 3.
    """
    gains = metrics["differences"].get(f"{STUDENT} - {SFT}", {}).get("win_rate", {})
    rows = tuple(
        (Cell(by_judge(bin_name(b), judge, gains)), Cell(f"{b['n']:,}"), difference_cell(b, 100))
        for judge, gain in gains.items()
        if len(gain.get("by_length", ())) > 1
        for b in gain["by_length"]
    )
    return Table("Gain by length", ("The student's answer", "Prompts", "Points gained"), rows) if rows else None


def power_table(metrics: Mapping[str, Any]) -> Table | None:
    """How many prompts would show each difference, and which difference these prompts show."""
    rows = []
    for pair, by_metric in metrics["differences"].items():
        for judge, e in by_metric.get("win_rate", {}).items():
            power = e.get("power") or {}
            if power.get("detectable") is None:
                continue
            needed = power.get("prompts_needed")
            rows.append(
                (
                    Cell(by_judge(_pair_name(pair), judge, by_metric["win_rate"])),
                    difference_cell(e, 100),
                    Cell(f"{e['n']:,}"),
                    Cell(DASH if needed is None else f"{needed:,}"),
                    Cell(number(power["detectable"], scale=100)),
                )
            )
    columns = ("Comparison", "Difference", "Prompts", "Prompts needed", "Points these prompts show")
    return Table("How many prompts it takes", columns, tuple(rows)) if rows else None


def texts_table(metrics: Mapping[str, Any]) -> Table | None:
    """What the answers are made of: variety, repetition, copying, endings."""
    systems = metrics["systems"]
    if not any("distinct" in s for s in systems.values()):
        return None
    rows = []
    for system in order_systems(systems):
        s = systems[system]
        distinct = s.get("distinct") or {}
        rows.append(
            (
                Cell(system_name(system)),
                *(_share(distinct.get(n)) for n in ("1", "2", "3")),
                *(estimate_cell(s.get(k), scale=100) for k in ("repetition", "copied", "novel")),
                _share(s.get("ended")),
                _share(s.get("same_as_sft")),
                _length_cell(s.get("length") or {}),
            )
        )
    columns = (
        "System",
        "Distinct-1",
        "Distinct-2",
        "Distinct-3",
        "Repeated",
        "Copied",
        "Novel",
        "Ended",
        "Same as SFT",
        "Words",
    )
    return Table("What the answers are made of", columns, tuple(rows))


def _length_cell(length: Mapping[str, Any]) -> Cell:
    """Median number of words, and the middle nine tenths."""
    q = length.get("quantiles") or {}
    if q.get("p50") is None:
        return Cell(DASH)
    return Cell(number(q["p50"], digits=0), interval({"low": q["p5"], "high": q["p95"]}, digits=0))


def differences_table(metrics: Mapping[str, Any]) -> Table:
    """Paired differences: metric by pair of systems; those of compared methods have a table of their own."""
    methods = set(metrics.get("comparison", {}).get("methods", ()))
    pairs = {pair: e for pair, e in metrics["differences"].items() if not methods & set(pair.split(" - "))}
    rows: dict[str, dict[str, Cell]] = {}
    for pair, by_metric in pairs.items():
        for metric, e in by_metric.items():
            if metric == "win_rate":
                for judge, rate in e.items():
                    rows.setdefault(f"Win rate, {judge}", {})[pair] = difference_cell(rate, 100)
                    equal = rate.get("length_controlled") or {}
                    rows.setdefault(f"Win rate at equal length, {judge}", {})[pair] = difference_cell(equal, 100)
            else:
                scale = 1.0 if metric == "words" else 100.0
                rows.setdefault(METRICS[metric], {})[pair] = difference_cell(e, scale, judged=metric != "words")
    columns = ("Metric", *(_pair_name(pair) for pair in pairs))
    body = tuple(
        (Cell(name), *(cells.get(pair, Cell(DASH)) for pair in pairs))
        for name, cells in rows.items()
        if any(cell.text != DASH for cell in cells.values())
    )
    return Table("Paired differences", columns, body)


def _pair_name(pair: str) -> str:
    return " − ".join(system_name(s) for s in pair.split(" - "))


def difference_cell(e: Mapping[str, Any], scale: float, *, judged: bool = True, digits: int = 1) -> Cell:
    """A difference with interval and p-value, in colour where both say so and `judged` is set."""
    if e.get("value") is None:
        return Cell(DASH)
    band = interval(e, scale=scale, digits=digits, sign=True)
    parts = [band, p_value(e.get("p")), f"n = {e['n']}" if e["n"] < SMALL else ""]
    tone = tone_of(e) if judged else ""
    return Cell(
        number(e["value"], scale=scale, digits=digits, sign=True),
        ", ".join(p for p in parts if p),
        tone if tone in (BETTER, WORSE) else "",
    )


def teacher_student_table(metrics: Mapping[str, Any]) -> Table | None:
    """How often the answer called chosen really was the better one."""
    rates = metrics.get("teacher_student_win_rate") or {}
    rows = tuple(
        (
            Cell(judge),
            estimate_cell(r, scale=100),
            *(Cell(f"{r[k]:,}") for k in ("n", "wins", "ties", "losses", "unjudged")),
        )
        for judge, r in rates.items()
    )
    columns = ("Judge", "Teacher wins (%)", "Prompts", "Wins", "Ties", "Losses", "Unjudged")
    return Table("Teacher against SFT student, on the distillation prompts", columns, rows) if rows else None
