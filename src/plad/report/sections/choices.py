"""What was chosen on validation: candidates of the objective, checkpoints, rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from plad.report.facts import Facts
from plad.report.sections.tables import Cell, Table
from plad.report.sections.verdict import BETTER
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


def rounds_table(facts: Facts) -> Table | None:
    """Every round's student on validation and against the teacher, the kept one marked."""
    counts = facts.counts("distill")
    first = facts.counts("pair").get("pairs")
    rows = []
    for n, of_round in enumerate(counts.get("rounds", ())):
        kept = n == counts["kept_round"]
        rate, pairs = of_round["teacher_student"], of_round.get("pairs", first if n == 1 else None)
        rows.append(
            (
                Cell(("SFT student" if n == 0 else f"Round {n}") + (" (kept)" if kept else "")),
                *_validation_cells(of_round["validation"], BETTER if kept else ""),
                Cell(f"{number(rate['value'], scale=100)} %" if rate["n"] else DASH, interval(rate, scale=100)),
                Cell(DASH if pairs is None else f"{pairs:,}"),
            )
        )
    columns = ("Student", *_VALIDATION, "Teacher wins", "Pairs trained on")
    return Table("Rounds", columns, tuple(rows)) if rows else None


def rounds_said(facts: Facts) -> str:
    """On what teacher and student met, and why no further round was made."""
    counts = facts.counts("distill")
    if not counts.get("rounds"):
        return ""
    split = {"validation": "validation", "distill": "distillation"}[counts["rounds"][0]["met_on"]]
    ended = counts["stopped"] or "as many were made as were asked for"
    return f"Teacher and student met on {split} prompts, sampled as pairs are. The rounds ended: {ended}."


def kept_curves(facts: Facts) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl, the training run whose student was kept under the name of the stage."""
    kept = facts.counts("distill").get("stage", "distill")
    if kept == "distill":
        return facts.curves
    others = [row for row in facts.curves if row.get("stage") != "distill"]
    return [{**row, "stage": "distill"} if row.get("stage") == kept else row for row in others]


def _validation_cells(figures: Mapping[str, Any], tone: str = "") -> tuple[Cell, ...]:
    def share(name: str) -> str:
        return f"{number(figures[name], scale=100)} %" if name in figures else DASH

    rate = Cell(share("win_rate"), interval(figures, scale=100), tone)
    words = number(figures["words"]) if "words" in figures else DASH
    return (rate, Cell(share("rougeL")), Cell(words), Cell(share("ended")))
