"""How the numbers are made: every rule, the settings, the versions, and what could not be told."""

from collections.abc import Mapping

from pydantic import JsonValue

from plad.report.parts.blocks import Cell, ReportSection, Table, Text, blocks, group
from plad.report.parts.formatting import flatten
from plad.report.parts.run_facts import RunFacts


def how(facts: RunFacts) -> ReportSection:
    """Rules, settings, versions, and what is missing."""
    m = facts.metrics
    missing = list(facts.missing)
    if m is not None and m.calibration is not None and not m.calibration.judges:
        missing.append("judge that scores texts, for calibration")
    rules = tuple((Cell(k.replace("_", " ")), Cell(v)) for k, v in flatten(m.method if m else {}))
    title = "How the numbers are made"
    shown = blocks(
        group("Every rule", Table(title, (), rows=rules, look="terms", lookup=True) if rules else None, folded=True),
        group("Settings", settings_table("Settings", facts.config), folded=True),
        group("Versions", settings_table("Versions", dict(facts.versions)), folded=True),
        Text(f"Left out, because the run has no {', '.join(missing)}.") if missing else None,
    )
    return ReportSection("how", title, "How", shown)


def settings_table(title: str, settings: Mapping[str, JsonValue]) -> Table | None:
    """Key and value of nested settings."""
    rows = tuple((Cell(k), Cell(v)) for k, v in flatten(settings))
    return Table(title, ("Key", "Value"), rows, words=True, lookup=True) if rows else None
