"""The tables of a report that tell of the run: rows and pairs, stages, settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from plad.report.facts import Facts
from plad.report.sections.tables import Cell, Table, estimate_cell
from plad.report.sections.verdict import BETTER, WORSE
from plad.report.wording import DASH, number

_ORDERS = {
    "teacher_better": "Teacher's answer better",
    "student_better": "Student's answer better",
    "ties": "Ties",
    "both_right": "of them both right",
    "both_wrong": "of them both wrong",
    "unjudged": "Unjudged",
}
_ELSEWHERE = {"scored", "wrong", "scorer", "alarms", "candidates", "rounds"}


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
        (Cell(name), estimate_cell(s, scale=100), *(Cell(f"{s[k]:,}") for k in ("wrong", "pairs", "n")))
        for name, s in shares.items()
    )
    columns = ("Student's answer", "Wrong (%)", "Wrong pairs", "Judged pairs", "Prompts")
    return Table("Wrong pseudo-pairs", columns, rows)


def funnel_table(facts: Facts) -> Table | None:
    """From the rows of the training file to the pairs the student learnt from."""
    data, pair, distill = facts.counts("data"), facts.counts("pair"), facts.counts("distill")
    read = data.get("sft", 0) + data.get("distill", 0) + _train(data, "skipped") + _train(data, "overlap")
    stages: list[tuple[str, int, int, str]] = []  # name, rows, of, tone
    if read:
        stages.append(("Training rows in the file", read, read, ""))
        stages.append(("Skipped as invalid", _train(data, "skipped"), read, WORSE))
        overlap = _train(data, "overlap")
        stages.append(("Left out: the prompt stands in another file", overlap, read, WORSE))
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


def counted(counts: Mapping[str, Any]) -> str:
    """What a stage counted, in one line; what it didn't find is left out."""
    return ", ".join(f"{k} {v}" for k, v in flatten(_short(counts)) if v != "0") or DASH


def _short(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Counts without those that have a table of their own."""
    return {k: v for k, v in counts.items() if k not in _ELSEWHERE}


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
