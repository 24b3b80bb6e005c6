"""What a report says: words and tables, without their form."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plad.evaluate.stats import SMALL
from plad.report.facts import Facts
from plad.report.sections.calibration import calibration_said, calibration_table, reliability_table
from plad.report.sections.choices import alarms, candidates_table, rounds_said, rounds_table
from plad.report.sections.costs import counts_table, paid_said, paid_table, stages_table
from plad.report.sections.judges import judges_table
from plad.report.sections.methods import method_costs_table, methods_table
from plad.report.sections.run_tables import (
    flatten,
    funnel_table,
    scored_table,
    settings_table,
    wrong_table,
)
from plad.report.sections.tables import (
    Table,
    agreement_table,
    by_length_table,
    differences_table,
    judged_table,
    power_table,
    results_table,
    teacher_student_table,
    texts_table,
)
from plad.report.sections.verdict import Verdict, verdict
from plad.report.wording import harmless


@dataclass(frozen=True)
class Report:
    """What a report shows, in the order of the page; None or empty where the run lacks it."""

    name: str
    made: str
    verdict: Verdict
    warnings: tuple[str, ...]
    results: Table | None
    methods: Table | None
    method_costs: Table | None
    differences: Table | None
    by_length: Table | None
    power: Table | None
    texts: Table | None
    calibration: Table | None
    calibration_said: tuple[str, ...]
    reliability: Table | None
    teacher_student: Table | None
    candidates: Table | None
    rounds: Table | None
    rounds_said: str
    funnel: Table | None
    scored: Table | None
    wrong: Table | None
    stages: Table | None
    paid: Table | None
    paid_said: str
    counts: Table | None
    judges: Table | None
    judged: Table | None
    agreement: Table | None
    settings: Table | None
    versions: Table | None
    method: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    small: int = SMALL


def build_report(facts: Facts) -> Report:
    """Words and tables of a report."""
    m = facts.metrics
    method: dict[str, Any] = m["method"] if m else {}
    return Report(
        name=harmless(facts.name),
        made=max((s.get("finished", "") for s in facts.stages.values()), default=""),
        verdict=verdict(m),
        warnings=(*(m.get("warnings", ()) if m else ()), *alarms(facts)),
        results=results_table(m) if m else None,
        methods=methods_table(m) if m else None,
        method_costs=method_costs_table(m) if m else None,
        differences=differences_table(m) if m and m["differences"] else None,
        by_length=by_length_table(m) if m else None,
        power=power_table(m) if m else None,
        texts=texts_table(m) if m else None,
        calibration=calibration_table(m) if m else None,
        calibration_said=calibration_said(m) if m else (),
        reliability=reliability_table(m) if m else None,
        teacher_student=teacher_student_table(m) if m else None,
        candidates=candidates_table(facts),
        rounds=rounds_table(facts),
        rounds_said=rounds_said(facts),
        funnel=funnel_table(facts),
        scored=scored_table(facts),
        wrong=wrong_table(facts),
        stages=stages_table(facts),
        paid=paid_table(facts),
        paid_said=paid_said(facts),
        counts=counts_table(facts),
        judges=judges_table(m) if m else None,
        judged=judged_table(m) if m else None,
        agreement=agreement_table(m) if m else None,
        settings=settings_table("Settings", facts.config),
        versions=settings_table("Versions", facts.manifest.versions),
        method=tuple((k.replace("_", " "), v) for k, v in flatten(method)),
        missing=(*facts.missing, *_unmeasured(m or {})),
    )


def _unmeasured(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What it would have taken to measure what was asked for."""
    section = metrics.get("calibration")
    if section and not section["judges"]:
        yield "judge that scores texts, for calibration"
