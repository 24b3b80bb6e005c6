"""What a run cost: time by stage, and money where a provider was paid."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plad.report.facts import Facts
from plad.report.sections.run_tables import counted
from plad.report.sections.tables import Cell, Table
from plad.report.wording import DASH, duration, system_name

_SUMS = ("answers", "prompt_tokens", "completion_tokens", "estimated", "lost", "unpriced")
_UNFINISHED = "not finished"


def dollars(usd: float | None) -> str:
    """`$12.30`, with four digits below a dollar; a dash where no price is known."""
    return DASH if usd is None else f"${usd:,.4f}" if usd < 1 else f"${usd:,.2f}"


def stages_table(facts: Facts) -> Table | None:
    """Time of every finished stage, and its cost where a provider was asked."""
    if not facts.stages:
        return None
    money = {stage: _sum(rows)["usd"] for stage, rows in _by_stage(facts).items()}
    lines = [(name, stage.get("seconds", 0), money.get(name)) for name, stage in facts.stages.items()]
    if _UNFINISHED in money:
        lines.append((_UNFINISHED, None, money[_UNFINISHED]))
    lines.append(("all", sum(stage.get("seconds", 0) for stage in facts.stages.values()), _sum(facts.paid)["usd"]))
    rows = tuple(
        (
            Cell(name),
            Cell(DASH if seconds is None else duration(seconds)),
            *((Cell("" if usd is None else dollars(usd)),) if facts.paid else ()),
        )
        for name, seconds, usd in lines
    )
    return Table("Time and cost by stage", ("Stage", "Time", *(("Cost",) if facts.paid else ())), rows)


def counts_table(facts: Facts) -> Table | None:
    """What every finished stage counted."""
    rows = tuple((Cell(name), Cell(counted(stage.get("counts") or {}))) for name, stage in facts.stages.items())
    return Table("What each stage counted", ("Stage", "Counted"), rows, words=True) if rows else None


def paid_table(facts: Facts) -> Table | None:
    """Who answered for money: answers, tokens and cost; None where no provider was asked."""
    if not facts.paid:
        return None
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in facts.paid:
        groups[(row["system"], row["model"] or DASH)].append(row)
    rows = [_paid_row(f"{system_name(system)} ({model})", found) for (system, model), found in groups.items()]
    if len(rows) > 1:
        rows.append(_paid_row("all", facts.paid))
    columns = ("Provider's answers", "Answers", "Tokens in", "Tokens out", "Cost")
    return Table("What providers were paid for", columns, tuple(rows))


def paid_said(facts: Facts) -> str:
    """What the sums don't hold, and how they were spread over the stages; empty where nothing was paid for."""
    if not facts.paid:
        return ""
    total = _sum(facts.paid)
    said = ["An answer counts to the first stage that ended after it came."]
    if total["unpriced"]:
        said.append(f"No price is known for {total['unpriced']:,} of {total['answers']:,} answers.")
    if total["estimated"]:
        said.append(f"The tokens of {total['estimated']:,} answers are estimated: the provider counted none.")
    if total["lost"]:
        said.append(f"{total['lost']:,} requests brought no answer and may be billed all the same.")
    return " ".join(said)


def cost_of(facts: Facts) -> str:
    """US dollars of a whole run; a dash where none was paid or no price is known."""
    return dollars(_sum(facts.paid)["usd"])


def _paid_row(name: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Cell, ...]:
    total = _sum(rows)
    whole = (Cell(f"{total[k]:,}") for k in ("answers", "prompt_tokens", "completion_tokens"))
    return (Cell(name), *whole, Cell(dollars(total["usd"])))


def _sum(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of counts; `usd` None where no row has a price."""
    found = list(rows)
    prices = [row["usd"] for row in found if row["usd"] is not None]
    return {**{k: sum(row[k] for row in found) for k in _SUMS}, "usd": sum(prices) if prices else None}


def _by_stage(facts: Facts) -> dict[str, list[dict[str, Any]]]:
    """Rows of `facts.paid` by the first stage that ended after them."""
    ends: Sequence[tuple[str, str]] = sorted(
        (s["finished"], name) for name, s in facts.stages.items() if "finished" in s
    )
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in facts.paid:
        found[next((name for end, name in ends if end >= row["created"]), _UNFINISHED)].append(row)
    return dict(found)
