"""Calibration of likelihoods: does the student find the better of two texts the likelier one?"""

from collections.abc import Mapping, Sequence
from typing import Literal

from plad.evaluate.metrics import CalibrationChange, CalibrationFigures, LikelihoodCalibration, Metrics, ReliabilityBin
from plad.records import STUDENT, STUDENT_SFT
from plad.report.parts.blocks import (
    BETTER,
    SAME,
    WORSE,
    Cell,
    Plot,
    ReportSection,
    Table,
    Text,
    blocks,
    group,
    plots,
)
from plad.report.parts.drawing import SOFT, A, Axes, B
from plad.report.parts.estimates import (
    by_judge,
    count_cell,
    difference_cell,
    estimate_cell,
    evidence,
    points_apart,
    rates_plot,
    tone_of,
)
from plad.report.parts.formatting import DASH, NAMES, harmless, interval, number, system_name
from plad.report.parts.run_facts import RunFacts

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
_Measure = Literal["pairwise_accuracy", "kendall", "spearman", "ece"]
_MEASURES: dict[_Measure, tuple[str, float, int]] = {  # name, scale, digits
    "pairwise_accuracy": ("Pairwise accuracy, %", 100.0, 1),
    "kendall": ("Kendall's tau", 1.0, 3),
    "spearman": ("Spearman's rho", 1.0, 3),
    "ece": ("Calibration error, points", 100.0, 1),
}
MODELS = (STUDENT_SFT, STUDENT)
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


def calibration(facts: RunFacts) -> ReportSection | None:
    """How well likelihoods order texts before and after distillation; None where no order was to be found."""
    m = facts.metrics
    table = None if m is None else calibration_table(m)
    if m is None or table is None:
        return None
    *first, basis = calibration_sentences(m)
    shown = blocks(
        [Text(sentence, tone="lead" if len(first) == 2 and not i else "") for i, sentence in enumerate(first)],
        Text(basis, f"{basis} {NOTE}"),
        plots(calibration_plots(m)),
        table,
        group(
            "What was measured, and how often its confidence is right",
            Text(NOTE, ""),
            Text(RELIABILITY),
            reliability_table(m),
            folded=True,
        ),
    )
    return ReportSection("calibration", "Calibration: are better texts likelier?", "Calibration", shown)


def judges_with_order(metrics: Metrics) -> dict[str, CalibrationChange]:
    """By judge, where there was an order to be found."""
    found = metrics.calibration.judges if metrics.calibration else dict[str, CalibrationChange]()
    return {judge: by for judge, by in found.items() if by.after.pairwise_accuracy.n}


def calibration_sentences(metrics: Metrics) -> tuple[str, ...]:
    """The first judge's answer: in a few words (where it can be said), with figures, and what it was measured on."""
    judges = judges_with_order(metrics)
    if not judges or metrics.calibration is None:
        return ()
    judge, by = next(iter(judges.items()))
    before, after = (e.pairwise_accuracy.value for e in (by.before, by.after))
    change = by.difference.pairwise_accuracy
    head, found = _HEADLINES.get(tone_of(change)), evidence(change)
    figures = (
        f"The better of two texts was the likelier one in {number(before, scale=100)} % of pairs before distillation "
        f"and in {number(after, scale=100)} % after it: {points_apart(change.value or 0.0)}"
        f"{f' ({found})' if found else ''}; judge: {judge}."
    )
    return (*([f"{head}."] if head else []), figures, _measured_on(metrics.calibration, by))


def _measured_on(figures: CalibrationFigures, by: CalibrationChange) -> str:
    writers = " and ".join(f"the {NAMES[w] if w == STUDENT_SFT else NAMES[w].lower()}" for w in figures.writers)
    left = [f"{_LEFT_OUT.get(k, k.replace('_', ' '))} {n:,}" for k, n in figures.left_out.items() if n]
    basis = (
        f"{figures.texts:,} texts to {figures.prompts:,} test prompts, sampled by {writers} at temperature "
        f"{figures.temperature:g}; {by.after.pairwise_accuracy.n:,} prompts had texts of different quality, "
        f"{by.after.pairs:,} pairs in all"
    )
    return f"{basis}. Left out: {', '.join(left)}." if left else f"{basis}."


def calibration_table(metrics: Metrics) -> Table | None:
    """Measures before and after distillation, and the paired difference."""
    judges = judges_with_order(metrics)
    rows: list[tuple[Cell, ...]] = []
    for judge, by in judges.items():
        rows += [_row(by_judge(title, judge, judges), by, measure) for measure, (title, _, _) in _MEASURES.items()]
        if by.own and by.own.after.pairwise_accuracy.n:
            title = f"{_MEASURES['pairwise_accuracy'][0]}, of own texts"
            rows.append(_row(by_judge(title, judge, judges), by.own, "pairwise_accuracy"))
    columns = ("Measure", *map(system_name, MODELS), "Change")
    return Table("Calibration of likelihoods", columns, tuple(rows)) if rows else None


def _row(name: str, by: CalibrationChange, measure: _Measure) -> tuple[Cell, ...]:
    _, scale, digits = _MEASURES[measure]
    cells = (estimate_cell(getattr(e, measure), scale=scale, digits=digits) for e in (by.before, by.after))
    return (Cell(name), *cells, _change_cell(by, measure))


def _change_cell(by: CalibrationChange, measure: _Measure) -> Cell:
    _, scale, digits = _MEASURES[measure]
    return difference_cell(getattr(by.difference, measure), scale, digits=digits)


def changes_table(runs: Mapping[str, Metrics]) -> Table | None:
    """Of several runs: pairwise accuracy before and after distillation, and what changed; None where none measured it.

    Args:
        runs: by name.
    """
    rows = tuple(
        (
            Cell(harmless(by_judge(run, judge, judges))),
            *(estimate_cell(e.pairwise_accuracy, scale=100) for e in (by.before, by.after)),
            *(_change_cell(by, measure) for measure in _MEASURES),
        )
        for run, metrics in runs.items()
        for judges in (judges_with_order(metrics),)
        for judge, by in judges.items()
    )
    accuracy = [f"Pairwise accuracy, {system_name(model)} (%)" for model in MODELS]
    changes = [f"Change: {title}" for title, _, _ in _MEASURES.values()]
    return Table("Calibration of likelihoods", ("Run", *accuracy, *changes), rows) if rows else None


def reliability_table(metrics: Metrics) -> Table | None:
    """How often the likelier text is the better one, by the student's confidence."""
    judges = judges_with_order(metrics)
    rows = tuple(
        (
            Cell(by_judge(f"{100 * b.start:.0f} to {100 * b.end:.0f} %", judge, judges)),
            *_bin_cells(b),
            *_bin_cells(a),
        )
        for judge, by in judges.items()
        for b, a in zip(by.before.reliability, by.after.reliability, strict=True)
        if b.pairs or a.pairs
    )
    names = [f"{system_name(model)}, {what}" for model in MODELS for what in ("right (%)", "pairs")]
    return Table("Confidence and how often it is right", ("Confidence", *names), rows) if rows else None


def _bin_cells(row: ReliabilityBin) -> tuple[Cell, Cell]:
    right = DASH if row.value is None else number(row.value, scale=100)
    return Cell(right, interval(row, scale=100)), count_cell(row.pairs)


def calibration_plots(metrics: Metrics) -> list[Plot]:
    """A judge's two plots: pairwise accuracy before and after, and the reliability curves."""
    drawn: list[Plot | None] = []
    for i, (judge, by) in enumerate(judges_with_order(metrics).items()):
        models = dict(zip(map(system_name, MODELS), (by.before, by.after), strict=True))
        drawn.append(
            rates_plot(
                f"order-{i}",
                f"How often the better of two texts is the likelier one, judge {judge}",
                [(name, e.pairwise_accuracy) for name, e in models.items()],
                mine=system_name(STUDENT),
                axis="% of pairs (dashed: a coin)",
            )
        )
        drawn.append(_reliability_plot(f"reliable-{i}", judge, models))
    return [plot for plot in drawn if plot]


def _reliability_plot(name: str, judge: str, models: Mapping[str, LikelihoodCalibration]) -> Plot | None:
    lines = {model: [b for b in e.reliability if b.pairs] for model, e in models.items()}
    if not any(lines.values()):
        return None

    def draw(axes: Axes) -> None:
        end = 100 * max(b.end for bins in lines.values() for b in bins)
        axes.plot([50, end], [50, end], color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
        for (model, bins), colour, marker, aside in zip(lines.items(), (B, A), ("s", "o"), (-0.25, 0.25), strict=True):
            x = [b + aside for b in _percent(bins, "confidence")]  # beside each other where both are equally sure
            axes.vlines(x, _percent(bins, "low"), _percent(bins, "high"), color=colour, linewidth=4, alpha=0.35)
            axes.plot(x, _percent(bins, "value"), color=colour, label=model, marker=marker, markersize=6)
        axes.set_xlim(49, end + 1)
        axes.set_xlabel("% confident (dashed: as right as confident)")
        axes.set_ylabel("% right")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)

    alt = "; ".join(f"{model}: {', '.join(map(_bin_in_words, bins))}" for model, bins in lines.items())
    return Plot(name, f"Confidence and how often it is right, judge {judge}", alt, 2.9, draw)


def _percent(bins: Sequence[ReliabilityBin], field: Literal["confidence", "value", "low", "high"]) -> list[float]:
    return [100 * getattr(b, field) for b in bins]


def _bin_in_words(b: ReliabilityBin) -> str:
    right = f"{number(b.value, scale=100)} % right ({interval(b, scale=100)}, {b.pairs:,} pairs)"
    return f"{number(b.confidence, scale=100)} % confident, {right}"
