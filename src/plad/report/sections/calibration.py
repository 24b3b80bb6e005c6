"""Calibration of likelihoods on the page: does the student find the better of two texts the likelier one?"""

from collections.abc import Mapping
from typing import Any

from plad.evaluate.run import SFT, STUDENT
from plad.report.sections.tables import Cell, Table, by_judge, difference_cell, estimate_cell
from plad.report.sections.verdict import BETTER, SAME, WORSE, points_apart, tone_of
from plad.report.wording import DASH, NAMES, harmless, interval, number, p_value, system_name

NOTE = (
    "Every text was scored by the judge and by its log-likelihood a token under the student before and after "
    "distillation; only texts of one prompt are compared. Pairwise accuracy: how often the better of two texts is the "
    "likelier one, 50 % by chance. Kendall's tau and Spearman's rho: agreement of both orders over all texts of a "
    "prompt, from −1 (reversed) over 0 (none) to 1 (the same). Calibration error: how far confidence and accuracy are "
    "apart in the bins below, less is better. Of own texts: those that the SFT student wrote itself, without the "
    "teacher's, which distillation makes likelier on purpose."
)
RELIABILITY = (
    "Of two texts a student says with confidence σ(difference in likelihood) which is the better one. Right: how often "
    "it is, by that confidence. Where both are equal its confidence can be believed; right more often than it is "
    "confident means it knows more than it says."
)
_MEASURES = {  # name, scale, digits
    "pairwise_accuracy": ("Pairwise accuracy, %", 100.0, 1),
    "kendall": ("Kendall's tau", 1.0, 3),
    "spearman": ("Spearman's rho", 1.0, 3),
    "ece": ("Calibration error, points", 100.0, 1),
}
MODELS = (SFT, STUDENT)
_LEFT_OUT = {
    "same_text": "the same text again",
    "truncated": "cut off",
    "empty": "empty",
    "too_long": "prompt too long",
    "alone": "prompts with fewer than two texts",
}
_HEADLINES = {
    BETTER: "Distillation brought likelihood and quality closer together",
    SAME: "No change in how likelihoods order texts that this test can tell from chance",
    WORSE: "Distillation took likelihood and quality further apart",
}


def judges_with_order(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """By judge, where there was an order to be found."""
    found = (metrics.get("calibration") or {}).get("judges", {})
    return {judge: by for judge, by in found.items() if by[STUDENT]["pairwise_accuracy"]["n"]}


def calibration_said(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The first judge's answer: in a few words (where it can be said), with figures, and what it was measured on."""
    judges = judges_with_order(metrics)
    if not judges:
        return ()
    judge, by = next(iter(judges.items()))
    before, after = (by[model]["pairwise_accuracy"]["value"] for model in MODELS)
    change = by["difference"]["pairwise_accuracy"]
    head = _HEADLINES.get(tone_of(change))
    evidence = ", ".join(x for x in (_band(change), p_value(change.get("p"))) if x)
    figures = (
        f"The better of two texts was the likelier one in {number(before, scale=100)} % of pairs before distillation "
        f"and in {number(after, scale=100)} % after it: {points_apart(change)}{f' ({evidence})' if evidence else ''}; "
        f"judge: {judge}."
    )
    return (*([f"{head}."] if head else []), figures, _measured_on(metrics["calibration"], by))


def _band(change: Mapping[str, Any]) -> str:
    band = interval(change, scale=100, sign=True)
    return f"95 % interval {band}" if band else ""


def _measured_on(section: Mapping[str, Any], by: Mapping[str, Any]) -> str:
    writers = " and ".join(f"the {NAMES[w] if w == SFT else NAMES[w].lower()}" for w in section["writers"])
    left = [f"{_LEFT_OUT.get(k, k.replace('_', ' '))} {n:,}" for k, n in section["left_out"].items() if n]
    n, pairs = by[STUDENT]["pairwise_accuracy"]["n"], by[STUDENT]["pairs"]
    said = (
        f"{section['texts']:,} texts to {section['prompts']:,} test prompts, sampled by {writers} at temperature "
        f"{section['temperature']:g}; {n:,} prompts had texts of different quality, {pairs:,} pairs in all"
    )
    return f"{said}. Left out: {', '.join(left)}." if left else f"{said}."


def calibration_table(metrics: Mapping[str, Any]) -> Table | None:
    """Measures before and after distillation, and the paired difference."""
    judges = judges_with_order(metrics)
    rows: list[tuple[Cell, ...]] = []
    for judge, by in judges.items():
        rows += [_row(by_judge(title, judge, judges), by, measure) for measure, (title, _, _) in _MEASURES.items()]
        own = by.get("own")
        if own and own[STUDENT]["pairwise_accuracy"]["n"]:
            title = f"{_MEASURES['pairwise_accuracy'][0]}, of own texts"
            rows.append(_row(by_judge(title, judge, judges), own, "pairwise_accuracy"))
    columns = ("Measure", *map(system_name, MODELS), "Change")
    return Table("Likelihood against quality", columns, tuple(rows)) if rows else None


def _row(name: str, by: Mapping[str, Any], measure: str) -> tuple[Cell, ...]:
    _, scale, digits = _MEASURES[measure]
    cells = (estimate_cell(by[model].get(measure), scale=scale, digits=digits) for model in MODELS)
    return (Cell(name), *cells, difference_cell(by["difference"].get(measure) or {}, scale, digits=digits))


def changes_table(runs: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Of several runs: pairwise accuracy before and after distillation, and what changed; None where none measured it.

    Args:
        runs: name -> contents of metrics.json.
    """
    rows = tuple(
        (
            Cell(harmless(by_judge(run, judge, judges))),
            *(estimate_cell(by[model]["pairwise_accuracy"], scale=100) for model in MODELS),
            *(
                difference_cell(by["difference"].get(measure) or {}, scale, digits=digits)
                for measure, (_, scale, digits) in _MEASURES.items()
            ),
        )
        for run, metrics in runs.items()
        for judges in (judges_with_order(metrics),)
        for judge, by in judges.items()
    )
    accuracy = [f"Pairwise accuracy, {system_name(model)} (%)" for model in MODELS]
    changes = [f"Change: {title}" for title, _, _ in _MEASURES.values()]
    return Table("Calibration of likelihoods", ("Run", *accuracy, *changes), rows) if rows else None


def reliability_table(metrics: Mapping[str, Any]) -> Table | None:
    """How often the likelier text is the better one, by the student's confidence."""
    judges = judges_with_order(metrics)
    rows = [
        (
            Cell(by_judge(f"{100 * b['from']:.0f} to {100 * b['to']:.0f} %", judge, judges)),
            *_bin_cells(b),
            *_bin_cells(a),
        )
        for judge, by in judges.items()
        for b, a in zip(*(by[model]["reliability"] for model in MODELS), strict=True)
        if b["pairs"] or a["pairs"]
    ]
    names = [f"{system_name(model)}, {what}" for model in MODELS for what in ("right (%)", "pairs")]
    return Table("Confidence and how often it is right", ("Confidence", *names), tuple(rows)) if rows else None


def _bin_cells(row: Mapping[str, Any]) -> tuple[Cell, Cell]:
    right = DASH if row["value"] is None else number(row["value"], scale=100)
    return Cell(right, interval(row, scale=100)), Cell(f"{row['pairs']:,}")
