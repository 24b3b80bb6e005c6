"""What a run cost: time by stage, and money where a provider was paid."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from plad.answers.schema import Purchase
from plad.report.parts.blocks import Cell, Plot, ReportSection, Table, Text, blocks, explained, group, plots
from plad.report.parts.drawing import A, Axes
from plad.report.parts.estimates import count_cell, name_rows
from plad.report.parts.formatting import DASH, duration, flatten, system_name
from plad.report.parts.run_facts import RunFacts, StageRecord

_UNFINISHED = "not finished"
_ELSEWHERE = {
    "scored",
    "wrong",
    "scorer",
    "alarms",
    "withdrawn",
    "candidates",
    "rounds",
}  # counts that have a table of their own


def costs(facts: RunFacts) -> ReportSection:
    """Time of every stage, and what providers were paid."""
    none_yet = Text("No stage has finished yet.", "", tone="")
    shown = blocks(
        plots([time_plot(facts.stages)]),
        stages_table(facts) or none_yet,
        group("What each stage counted", counts_table(facts), folded=True),
        group("What providers were paid for", explained(paid_table(facts), Text(about_paid(facts)))),
    )
    return ReportSection("cost", "Time and cost by stage", "Time and cost", shown)


def dollars(usd: float | None) -> str:
    """`$12.30`, with four digits below a dollar; a dash where no price is known."""
    return DASH if usd is None else f"${usd:,.4f}" if usd < 1 else f"${usd:,.2f}"


def time_plot(stages: Mapping[str, StageRecord]) -> Plot | None:
    """How long each stage took."""
    rows = [(name, stage.seconds) for name, stage in stages.items() if stage.seconds >= 1]
    if len(rows) < 2:
        return None
    unit, name = (3600, "hours") if max(s for _, s in rows) > 7200 else (60, "minutes")

    def draw(axes: Axes) -> None:
        for y, (_, seconds) in enumerate(reversed(rows)):
            axes.barh(y, seconds / unit, color=A, height=0.5)
            end = (seconds / unit, y)
            axes.annotate(duration(seconds), end, (4, 0), textcoords="offset points", va="center", fontsize=9)
        name_rows(axes, [stage for stage, _ in rows])
        axes.margins(x=0.2)
        axes.set_xlim(left=0)
        axes.set_xlabel(name)

    alt = "; ".join(f"{stage} {duration(seconds)}" for stage, seconds in rows)
    return Plot("time", "Time by stage", alt, 0.7 + 0.36 * len(rows), draw)


def stages_table(facts: RunFacts) -> Table | None:
    """Time of every finished stage, and its cost where a provider was asked."""
    if not facts.stages:
        return None
    money = {stage: _dollars(rows) for stage, rows in _by_stage(facts).items()}
    lines: list[tuple[str, float | None, float | None]] = [
        (name, stage.seconds, money.get(name)) for name, stage in facts.stages.items()
    ]
    if _UNFINISHED in money:
        lines.append((_UNFINISHED, None, money[_UNFINISHED]))
    lines.append(("all", sum(stage.seconds for stage in facts.stages.values()), _dollars(facts.paid)))
    rows = tuple(
        (
            Cell(name),
            Cell(DASH if seconds is None else duration(seconds)),
            *((Cell("" if usd is None else dollars(usd)),) if facts.paid else ()),
        )
        for name, seconds, usd in lines
    )
    return Table("Time and cost by stage", ("Stage", "Time", *(("Cost",) if facts.paid else ())), rows)


def counts_table(facts: RunFacts) -> Table | None:
    """What every finished stage counted; what it didn't find is left out."""
    counts = {name: {k: v for k, v in s.counts.items() if k not in _ELSEWHERE} for name, s in facts.stages.items()}
    rows = tuple(
        (Cell(name), Cell(", ".join(f"{k} {v}" for k, v in flatten(found) if v != "0") or DASH))
        for name, found in counts.items()
    )
    return Table("What each stage counted", ("Stage", "Counted"), rows, words=True) if rows else None


def paid_table(facts: RunFacts) -> Table | None:
    """Who answered for money: answers, tokens and cost; None where no provider was asked."""
    if not facts.paid:
        return None
    groups: dict[str, list[Purchase]] = defaultdict(list)
    for row in facts.paid:
        groups[f"{system_name(row.system)} ({row.model or DASH})"].append(row)
    rows = [_paid_row(name, found) for name, found in groups.items()]
    if len(rows) > 1:
        rows.append(_paid_row("all", facts.paid))
    columns = ("Provider's answers", "Answers", "Tokens in", "Tokens out", "Cost")
    return Table("What providers were paid for", columns, tuple(rows))


def about_paid(facts: RunFacts) -> str:
    """What the sums don't hold, and how they were spread over the stages; empty where nothing was paid for."""
    if not facts.paid:
        return ""
    answers, unpriced, estimated, lost = (
        sum(n) for n in zip(*((r.answers, r.unpriced, r.estimated, r.lost) for r in facts.paid), strict=True)
    )
    sentences = ["An answer counts to the first stage that ended after it came."]
    if unpriced:
        sentences.append(f"No price is known for {unpriced:,} of {answers:,} answers.")
    if estimated:
        sentences.append(f"The tokens of {estimated:,} answers are estimated: the provider counted none.")
    if lost:
        sentences.append(f"{lost:,} requests brought no answer and may be billed all the same.")
    return " ".join(sentences)


def cost_of(facts: RunFacts) -> str:
    """US dollars of a whole run; a dash where none was paid or no price is known."""
    return dollars(_dollars(facts.paid))


def _paid_row(name: str, rows: Sequence[Purchase]) -> tuple[Cell, ...]:
    sums = zip(*((r.answers, r.prompt_tokens, r.completion_tokens) for r in rows), strict=True)
    return (Cell(name), *(count_cell(sum(n)) for n in sums), Cell(dollars(_dollars(rows))))


def _dollars(rows: Sequence[Purchase]) -> float | None:
    """The sum; None where no row has a price."""
    prices = [row.usd for row in rows if row.usd is not None]
    return sum(prices) if prices else None


def _by_stage(facts: RunFacts) -> dict[str, list[Purchase]]:
    """Purchases by the first stage that ended after them."""
    ends = sorted((stage.finished, name) for name, stage in facts.stages.items() if stage.finished)
    found: dict[str, list[Purchase]] = defaultdict(list)
    for row in facts.paid:
        found[next((name for end, name in ends if end >= row.created), _UNFINISHED)].append(row)
    return dict(found)
