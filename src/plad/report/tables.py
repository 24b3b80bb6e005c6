"""The tables of a report: one shape that the page and its Markdown twin both print, so that their numbers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plad.evaluate.stats import SMALL
from plad.report.facts import Facts
from plad.report.verdict import BETTER, WORSE, tone_of
from plad.report.wording import (
    DASH,
    METRICS,
    duration,
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


def _estimate(e: Mapping[str, Any] | None, *, scale: float = 1.0, digits: int = 1) -> Cell:
    if not e or e.get("value") is None:
        return Cell(DASH)
    small = f" n = {e['n']}" if e["n"] < SMALL else ""
    return Cell(number(e["value"], scale=scale, digits=digits), interval(e, scale=scale, digits=digits) + small)


def _share(value: float | None) -> Cell:
    return Cell(DASH if value is None else f"{number(value, scale=100)} %")


def judges_of(metrics: Mapping[str, Any]) -> list[str]:
    """All judges, in the order of the config."""
    return list(dict.fromkeys(j for s in metrics["systems"].values() for j in s["win_rate"]))


def results_table(metrics: Mapping[str, Any]) -> Table:
    """System by metric, each with its interval."""
    rates = [s["win_rate"] for s in metrics["systems"].values()]
    judges = [j for j in judges_of(metrics) if any(j in r and r[j]["n"] for r in rates)]
    rouge = [m for m in ROUGE if any(m in s for s in metrics["systems"].values())]
    rows = []
    for system in order_systems(metrics["systems"]):
        s = metrics["systems"][system]
        rows.append(
            (
                Cell(system_name(system)),
                *(_estimate(s["win_rate"].get(j), scale=100) for j in judges),
                *(_estimate(s.get(m), scale=100) for m in rouge),
                _estimate(s.get("words")),
                _share(s.get("truncated")),
                _share(s.get("empty")),
            )
        )
    columns = ("System", *(f"Win rate, {j}" for j in judges), *(METRICS[m] for m in rouge), "Words", "Cut off", "Empty")
    return Table("Results on the test set", columns, tuple(rows))


def judged_table(metrics: Mapping[str, Any]) -> Table:
    """What every win rate was counted from."""
    rows = [
        (
            Cell(system_name(system)),
            Cell(judge),
            *(Cell(f"{rate[k]:,}") for k in ("n", "wins", "ties", "losses", "unjudged")),
        )
        for system in order_systems(metrics["systems"])
        for judge, rate in metrics["systems"][system]["win_rate"].items()
    ]
    columns = ("System", "Judge", "Judged prompts", "Wins", "Ties", "Losses", "Unjudged")
    return Table("Comparisons with the human target", columns, tuple(rows))


def differences_table(metrics: Mapping[str, Any]) -> Table:
    """Paired differences: metric by pair of systems."""
    pairs = metrics["differences"]
    rows: dict[str, dict[str, Cell]] = {}
    for pair, by_metric in pairs.items():
        for metric, e in by_metric.items():
            if metric == "win_rate":
                for judge, rate in e.items():
                    rows.setdefault(f"Win rate, {judge}", {})[pair] = _difference(rate, 100)
            else:
                scale = 1.0 if metric == "words" else 100.0
                rows.setdefault(METRICS[metric], {})[pair] = _difference(e, scale, judged=metric != "words")
    columns = ("Metric", *(_pair_name(pair) for pair in pairs))
    body = tuple(
        (Cell(name), *(cells.get(pair, Cell(DASH)) for pair in pairs))
        for name, cells in rows.items()
        if any(cell.text != DASH for cell in cells.values())
    )
    return Table("Paired differences", columns, body)


def _pair_name(pair: str) -> str:
    return " − ".join(system_name(s) for s in pair.split(" - "))


def _difference(e: Mapping[str, Any], scale: float, *, judged: bool = True) -> Cell:
    if e.get("value") is None:
        return Cell(DASH)
    parts = [interval(e, scale=scale, sign=True), p_value(e.get("p")), f"n = {e['n']}" if e["n"] < SMALL else ""]
    tone = tone_of(e) if judged else ""
    return Cell(
        number(e["value"], scale=scale, sign=True),
        ", ".join(p for p in parts if p),
        tone if tone in (BETTER, WORSE) else "",
    )


def teacher_student_table(metrics: Mapping[str, Any]) -> Table | None:
    """How often the answer called chosen really was the better one."""
    rates = metrics.get("teacher_student_win_rate") or {}
    rows = tuple(
        (
            Cell(judge),
            _estimate(r, scale=100),
            *(Cell(f"{r[k]:,}") for k in ("n", "wins", "ties", "losses", "unjudged")),
        )
        for judge, r in rates.items()
    )
    columns = ("Judge", "Teacher wins (%)", "Prompts", "Wins", "Ties", "Losses", "Unjudged")
    return Table("Teacher against SFT student, on the distillation prompts", columns, rows) if rows else None


_ORDERS = {
    "teacher_better": "Teacher's answer better",
    "student_better": "Student's answer better",
    "ties": "Ties",
    "both_right": "of them both right",
    "both_wrong": "of them both wrong",
    "unjudged": "Unjudged",
}


def scored_table(facts: Facts) -> Table | None:
    """How the scorer of pairs ordered those it looked at."""
    pair = facts.counts("pair")
    scored = pair.get("scored")
    if not scored:
        return None
    rows = [(Cell("Pairs looked at"), Cell(f"{scored['pairs']:,}"))]
    rows += [(Cell(name), Cell(f"{scored[key]:,}")) for key, name in _ORDERS.items() if key in scored]
    rows.append((Cell("Swapped"), Cell(f"{pair.get('swapped', 0):,}")))
    return Table(f"Real preferences, by {pair['scorer']['name']}", ("Order", "Pairs"), tuple(rows))


def wrong_table(facts: Facts) -> Table | None:
    """Share of pseudo-pairs whose student's answer the scorer prefers, by the length of that answer."""
    wrong = facts.counts("pair").get("wrong")
    if not wrong or not wrong["n"]:
        return None
    shares = {"All lengths": wrong, **{f"{words} words": share for words, share in wrong["by_words"].items()}}
    rows = tuple(
        (Cell(name), _estimate(s, scale=100), *(Cell(f"{s[k]:,}") for k in ("wrong", "pairs", "n")))
        for name, s in shares.items()
    )
    columns = ("Student's answer", "Wrong (%)", "Wrong pairs", "Judged pairs", "Prompts")
    return Table("Wrong pseudo-pairs", columns, rows)


def funnel_table(facts: Facts) -> Table | None:
    """From the rows of the training file to the pairs the student learnt from."""
    data, pair, distill = facts.counts("data"), facts.counts("pair"), facts.counts("distill")
    read = data.get("sft", 0) + data.get("distill", 0) + _train(data, "skipped")
    stages: list[tuple[str, int, int, str]] = []  # name, rows, of, tone
    if read:
        stages.append(("Training rows in the file", read, read, ""))
        stages.append(("Skipped as invalid", _train(data, "skipped"), read, WORSE))
        stages.append(("For fine-tuning", data["sft"], read, ""))
        stages.append(("For distillation", data["distill"], read, ""))
    candidates = pair.get("candidates", 0)
    if candidates:
        stages.append(("Pairs sampled", candidates, candidates, ""))
        dropped = {k.removeprefix("dropped_"): v for k, v in pair.items() if k.startswith("dropped_")}
        stages += [(f"Dropped: {_reason(k)}", v, candidates, WORSE) for k, v in dropped.items()]
        stages.append(("Pairs kept", pair.get("pairs", 0), candidates, BETTER))
        stages.append(("Of them swapped: the student's answer is chosen", pair.get("swapped", 0), candidates, WORSE))
        if "too_long" in distill:
            stages.append(("Prompts left out of training: too long", distill["too_long"], candidates, WORSE))
    rows = tuple(
        (Cell(name), Cell(f"{n:,}", f"{number(n / of, scale=100)} %", tone, n / of))
        for name, n, of, tone in stages
        if n or tone != WORSE
    )
    return Table("From rows to pairs", ("Step", "Number"), rows) if rows else None


def _train(data: Mapping[str, Any], key: str) -> int:
    return (data.get(key) or {}).get("train", 0)


def _reason(key: str) -> str:
    known = {
        "identical": "both answers are the same",
        "empty": "an answer is empty",
        "truncated": "an answer was cut off",
        "too_long": "the prompt doesn't fit the context",
        "repeated": "the pair was there already",
        "not_selected": "other answers were selected",
        "unjudged": "the scorer could not judge",
        "tie": "the scorer finds both alike",
        "unsure": "the scores differ too little",
        "wrong": "the scorer prefers the student's answer",
    }
    return known.get(key, key.replace("_", " "))


def stages_table(facts: Facts) -> Table | None:
    """Time and counts of every finished stage."""
    rows = [
        (
            Cell(name),
            Cell(duration(stage.get("seconds", 0))),
            Cell(", ".join(f"{k} {v}" for k, v in flatten(_short(stage.get("counts") or {}))) or DASH),
        )
        for name, stage in facts.stages.items()
    ]
    if not rows:
        return None
    total = sum(stage.get("seconds", 0) for stage in facts.stages.values())
    rows.append((Cell("all"), Cell(duration(total)), Cell("")))
    return Table("Stages", ("Stage", "Time", "Counted"), tuple(rows), words=True)


def _short(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Counts without those that have a table of their own."""
    return {k: v for k, v in counts.items() if k not in ("scored", "wrong", "scorer")}


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of nested settings as (`a.b`, value)."""
    found: list[tuple[str, str]] = []
    for key, v in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(v, Mapping) and v:
            found += flatten(v, name)
        elif isinstance(v, float):
            found.append((name, f"{v:.6g}"))
        elif isinstance(v, Sequence) and not isinstance(v, str):
            for i, item in enumerate(v):
                found += flatten(item, f"{name}.{i}") if isinstance(item, Mapping) else [(f"{name}.{i}", str(item))]
        else:
            found.append((name, "none" if v is None else str(v)))
    return found


def settings_table(title: str, settings: Mapping[str, Any] | None) -> Table | None:
    """Key and value of nested settings."""
    rows = tuple((Cell(k), Cell(v)) for k, v in flatten(settings or {}))
    return Table(title, ("Key", "Value"), rows, words=True) if rows else None
