"""How the judges judged: by what rule, what order decided, what they couldn't judge."""

from collections.abc import Iterator, Mapping
from typing import Any

from plad.report.sections.tables import Cell, Table
from plad.report.wording import number

_KINDS = {
    "reward": "Reward model",
    "reference": "Likeness to the references",
    "embedding": "Nearness to the references",
    "verifiable": "Check of the final answer",
    "llm": "Language model",
}


def judges_table(metrics: Mapping[str, Any]) -> Table | None:
    """A row a judge: what it goes by and what a reader must know of how it went."""
    rows = tuple(
        (Cell(judge), Cell(". ".join(_rule(facts)) + "."), Cell("; ".join(_went(judge, facts, metrics)) + "."))
        for judge, facts in metrics["method"].get("judges", {}).items()
    )
    return Table("The judges", ("Judge", "What it goes by", "How it went"), rows, words=True) if rows else None


def _rule(facts: Mapping[str, Any]) -> Iterator[str]:
    kind = _KINDS.get(facts["type"]) or str(facts["type"])
    yield f"{kind} {facts['model']}" if "model" in facts else kind
    if "rubric" in facts:
        yield f"Rubric ({facts['task']}): {facts['rubric'].rstrip('.')}"
    if "rule" in facts:
        yield facts["rule"][:1].upper() + facts["rule"][1:].rstrip(".")


def _went(judge: str, facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[str]:
    rates = [s["win_rate"][judge] for s in metrics["systems"].values() if judge in s["win_rate"]]
    judged, unjudged = (sum(r[k] for r in rates) for k in ("wins", "unjudged"))
    judged += sum(r["ties"] + r["losses"] for r in rates)
    yield f"{judged:,} comparisons judged, {unjudged:,} not"
    bias = facts.get("position_bias")
    if bias and bias["share"] is not None:
        yield (
            f"position bias: in {number(bias['share'], scale=100)} % of {facts['decided']:,} comparisons asked in both "
            f"orders the order decided, and they count as ties ({bias['prefers_first']:,} for the first place, "
            f"{bias['prefers_second']:,} for the second, {bias['tie_in_one_order']:,} a tie in one order)"
        )
    if facts.get("unjudged"):
        yield "replies without a verdict: " + ", ".join(f"{n:,} {why}" for why, n in facts["unjudged"].items())
    if facts.get("speaks_to_judge"):
        spoke, denied = facts["speaks_to_judge"], facts["wins_denied"]
        yield f"answers that spoke to the judge: {spoke:,}, wins denied them: {denied:,}"
    if "scored" in facts:
        yield f"{facts.get('truncated', 0):,} of {facts['scored']:,} inputs cut off"
