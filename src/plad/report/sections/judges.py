"""How the judges judged: by what rule, what order decided, what they couldn't judge, how far they agree."""

from collections.abc import Iterator

from plad.config.judges import JudgeSection
from plad.evaluate.metrics import Estimate, Metrics
from plad.evaluate.stats import proportion
from plad.judges.facts import JudgeFacts
from plad.report.parts.blocks import Cell, ReportSection, Table, Text, blocks, explained, group
from plad.report.parts.estimates import by_judge, count_cell, estimate_cell, share_cell
from plad.report.parts.formatting import DASH, interval, number, order_systems, p_value, system_name
from plad.report.parts.measures import judges_of
from plad.report.parts.run_facts import RunFacts

_EQUAL = "At equal length: the win rate in % that is left when answers are as long as their target."
_AGREEMENT = "Verdicts on the same comparisons with the target. Kappa: 1 is full agreement, 0 what chance would give."


def judges(facts: RunFacts) -> ReportSection | None:
    """Every judge, their agreement, and what the win rates were counted from; None without judges."""
    m = facts.metrics
    table = judges_table(m) if m else None
    if m is None or table is None:
        return None
    counted = explained(judged_table(m), Text(_EQUAL))
    shown = blocks(
        table,
        group("How far the judges agree", explained(agreement_table(m), Text(_AGREEMENT))),
        group("Wins, ties, losses, and win rates at equal length", counted, folded=True),
    )
    return ReportSection("judges", "The judges", "Judges", shown)


def judges_table(metrics: Metrics) -> Table | None:
    """A row a judge: what it goes by and what a reader must know of how it went."""
    rows = tuple(
        (Cell(judge), Cell(". ".join(_rule(facts)) + "."), Cell("; ".join(_went(judge, facts, metrics)) + "."))
        for judge, facts in metrics.judges.items()
    )
    columns = ("Judge", "What it goes by", "How it went")
    return Table("The judges", columns, rows, words=True, look="terms") if rows else None


def _rule(facts: JudgeFacts) -> Iterator[str]:
    section = JudgeSection.named(facts.type)  # None where its package is no longer installed
    kind = (section and section.title) or facts.type
    yield kind if facts.model is None else f"{kind} {facts.model}"
    if facts.rubric is not None:
        yield f"Rubric ({facts.task}): {facts.rubric.rstrip('.')}"
    if facts.rule is not None:
        yield facts.rule[:1].upper() + facts.rule[1:].rstrip(".")


def _went(judge: str, facts: JudgeFacts, metrics: Metrics) -> Iterator[str]:
    rates = [s.win_rate[judge] for s in metrics.systems.values() if judge in s.win_rate]
    judged = sum(r.wins + r.ties + r.losses for r in rates)
    yield f"{judged:,} comparisons judged, {sum(r.unjudged for r in rates):,} not"
    bias = facts.position_bias
    if bias is not None and bias.share is not None:
        yield (
            f"position bias: in {number(bias.share, scale=100)} % of {facts.decided:,} comparisons asked in both "
            f"orders the order decided, and they count as ties ({bias.prefers_first:,} for the first place, "
            f"{bias.prefers_second:,} for the second, {bias.tie_in_one_order:,} a tie in one order)"
        )
    if facts.unjudged:
        yield "replies without a verdict: " + ", ".join(f"{n:,} {why}" for why, n in facts.unjudged.items())
    if facts.speaks_to_judge:
        yield f"answers that spoke to the judge: {facts.speaks_to_judge:,}, wins denied them: {facts.wins_denied:,}"
    if facts.canaries:
        e = proportion(facts.canaries_obeyed, facts.canaries)
        yield (
            f"an instruction put into an answer was obeyed in {facts.canaries_obeyed:,} of {facts.canaries:,} trials: "
            f"{number(e.value, scale=100)} % ({interval(e, scale=100)})"
        )
    if facts.scored is not None:
        yield f"{facts.truncated:,} of {facts.scored:,} inputs cut off"


def judged_table(metrics: Metrics) -> Table | None:
    """What every win rate was counted from."""
    judges = dict.fromkeys(judges_of(metrics))
    rows = tuple(
        (
            Cell(by_judge(system_name(system), judge, judges)),
            *map(count_cell, (rate.n, rate.wins, rate.ties, rate.losses, rate.unjudged)),
            estimate_cell(rate.length_controlled, scale=100),
            Cell(p_value(rate.sign_test_p).removeprefix("p = ").removeprefix("p ") or DASH),
        )
        for system in order_systems(metrics.systems)
        for judge, rate in metrics.systems[system].win_rate.items()
    )
    counts = ("Judged prompts", "Wins", "Ties", "Losses", "Unjudged")
    columns = ("System", *counts, "At equal length", "Sign test p")
    return Table("Comparisons with the human target", columns, rows) if rows else None


def agreement_table(metrics: Metrics) -> Table | None:
    """How far any two judges agree, beyond what chance would have it."""
    rows = tuple(
        (
            Cell(pair),
            share_cell(e.same),
            estimate_cell(Estimate(value=e.kappa, low=e.low, high=e.high, n=e.n), digits=2),
            count_cell(e.n),
        )
        for pair, e in metrics.agreement.items()
    )
    columns = ("Judges", "Same verdict", "Cohen's kappa", "Comparisons")
    return Table("How far the judges agree", columns, rows) if rows else None
