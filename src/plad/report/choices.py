"""What was chosen on validation: candidates of the objective, checkpoints, rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from plad.report.facts import Facts
from plad.report.tables import Cell, Table
from plad.report.verdict import BETTER
from plad.report.wording import DASH, harmless, interval, number

_VALIDATION = ("Validation win rate", "ROUGE-L", "Words", "Ended")


def alarms(facts: Facts) -> tuple[str, ...]:
    """Signs of collapse that were seen while distilling."""
    return tuple(f"While distilling, {sentence}" for sentence in facts.counts("distill").get("alarms", ()))


def candidates_table(facts: Facts) -> Table | None:
    """Every candidate of `objective: auto` with its validation, the kept one marked (Source: PLaD, Table 7)."""
    counts = facts.counts("distill")
    found: Sequence[Mapping[str, Any]] = counts.get("candidates", ())
    rows = tuple(
        (
            Cell(harmless(c["name"]) + (" (kept)" if c["name"] == counts.get("chosen") else "")),
            *_validation_cells(c.get("validation") or {}, BETTER if c["name"] == counts.get("chosen") else ""),
            Cell(f"{c['seconds']:,.0f} s"),
        )
        for c in found
    )
    return Table("Candidates for the objective", ("Candidate", *_VALIDATION, "Training"), rows) if rows else None


def _validation_cells(figures: Mapping[str, Any], tone: str = "") -> tuple[Cell, ...]:
    def share(name: str) -> str:
        return f"{number(figures[name], scale=100)} %" if name in figures else DASH

    rate = Cell(share("win_rate"), interval(figures, scale=100), tone)
    words = number(figures["words"]) if "words" in figures else DASH
    return (rate, Cell(share("rougeL")), Cell(words), Cell(share("ended")))
