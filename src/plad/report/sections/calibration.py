"""Calibration of likelihoods: does the student find the better of two texts the likelier one?"""

from collections.abc import Mapping, Sequence
from typing import Literal

from plad.evaluate.metrics import CalibrationChange, CalibrationFigures, LikelihoodCalibration, Metrics, ReliabilityBin
from plad.records import STUDENT, STUDENT_SFT, TEACHER
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
    "apart in the bins below, less is better. Own texts: those that the SFT student wrote itself, without the "
    "teacher's, which distillation makes likelier on purpose."
)
_CAVEAT = (
    "Distillation makes the teacher's texts likelier on purpose, and they are the better ones more often: that alone "
    "moves these figures"
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
OWN, ALL = "own texts", "all texts"
_IN_WORDS = {
    OWN: "Of two of the student's own texts the better one was the likelier one in {}.",
    ALL: f"With the teacher's texts among them it was so in {{}}. {_CAVEAT}.",
    "": "The better of two texts was the likelier one in {}.",
}
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
    head, *figures, basis = calibration_sentences(m)
    shown = blocks(
        Text(head, tone="lead") if head else None,
        [Text(sentence, tone="") for sentence in figures],
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


def kinds_of_texts(metrics: Metrics, by: CalibrationChange) -> dict[str, CalibrationChange]:
    """What was measured by which texts, the student's own first; all texts have no name where nobody else wrote any."""
    wrote = metrics.calibration.writers if metrics.calibration else ()
    if by.own is None and TEACHER not in wrote:
        return {"": by}
    own = {OWN: by.own} if by.own and by.own.after.pairwise_accuracy.n else {}
    return {**own, ALL: by}


def calibration_sentences(metrics: Metrics) -> tuple[str, ...]:
    """The first judge's answer: in a few words (empty where it can't be said), with figures, and on what.

    The few words are about the student's own texts, and never about those of a teacher that it was taught to find
    likely.
    """
    judges = judges_with_order(metrics)
    if not judges or metrics.calibration is None:
        return ()
    judge, by = next(iter(judges.items()))
    kinds = kinds_of_texts(metrics, by)
    first, decides = next(iter(kinds.items()))
    head = "" if first == ALL else _HEADLINES.get(tone_of(decides.difference.pairwise_accuracy), "")
    lead = head and (f"On the student's own texts: {head[0].lower()}{head[1:]}." if first == OWN else f"{head}.")
    figures = [_IN_WORDS[kind].format(_in_figures(found, judge)) for kind, found in kinds.items()]
    return (lead, *figures, _measured_on(metrics.calibration, by))


def _in_figures(by: CalibrationChange, judge: str) -> str:
    before, after = (
        (number(e.pairwise_accuracy.value, scale=100), number(e.ece.value, scale=100)) for e in (by.before, by.after)
    )
    change, error = by.difference.pairwise_accuracy, by.difference.ece
    found = evidence(change)
    moved = f" ({number(error.value, scale=100, sign=True)}, {evidence(error)})" if error.value is not None else ""
    return (
        f"{before[0]} % of pairs before distillation and in {after[0]} % after it: "
        f"{points_apart(change.value or 0.0)}{f' ({found})' if found else ''}; calibration error {before[1]} points "
        f"before and {after[1]} after it{moved}; judge: {judge}, {by.after.pairs:,} pairs"
    )


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
    """Measures before and after distillation, and the paired difference; of the student's own texts first."""
    judges = judges_with_order(metrics)
    rows = tuple(
        _row(by_judge(_named(title, kind), judge, judges), found, measure)
        for judge, by in judges.items()
        for kind, found in kinds_of_texts(metrics, by).items()
        for measure, (title, _, _) in _MEASURES.items()
    )
    columns = ("Measure", *map(system_name, MODELS), "Change")
    return Table("Calibration of likelihoods", columns, rows) if rows else None


def _named(title: str, kind: str) -> str:
    return f"{title}, {kind}" if kind else title


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
            Cell(harmless(by_judge(_named(run, kind), judge, judges))),
            *(estimate_cell(e.pairwise_accuracy, scale=100) for e in (found.before, found.after)),
            *(_change_cell(found, measure) for measure in _MEASURES),
        )
        for run, metrics in runs.items()
        for judges in (judges_with_order(metrics),)
        for judge, by in judges.items()
        for kind, found in kinds_of_texts(metrics, by).items()
    )
    accuracy = [f"Pairwise accuracy, {system_name(model)} (%)" for model in MODELS]
    changes = [f"Change: {title}" for title, _, _ in _MEASURES.values()]
    return Table("Calibration of likelihoods", ("Run", *accuracy, *changes), rows) if rows else None


def reliability_table(metrics: Metrics) -> Table | None:
    """How often the likelier text is the better one, by the student's confidence."""
    judges = judges_with_order(metrics)
    rows = tuple(
        (
            Cell(by_judge(_named(f"{100 * b.start:.0f} to {100 * b.end:.0f} %", kind), judge, judges)),
            *_bin_cells(b),
            *_bin_cells(a),
        )
        for judge, by in judges.items()
        for kind, found in kinds_of_texts(metrics, by).items()
        for b, a in zip(found.before.reliability, found.after.reliability, strict=True)
        if b.pairs or a.pairs
    )
    names = [f"{system_name(model)}, {what}" for model in MODELS for what in ("right (%)", "pairs")]
    return Table("Confidence and how often it is right", ("Confidence", *names), rows) if rows else None


def _bin_cells(row: ReliabilityBin) -> tuple[Cell, Cell]:
    right = DASH if row.value is None else number(row.value, scale=100)
    return Cell(right, interval(row, scale=100)), count_cell(row.pairs)


def calibration_plots(metrics: Metrics) -> list[Plot]:
    """A judge's plots: pairwise accuracy before and after, and the reliability curves of each kind of texts."""
    drawn: list[Plot | None] = []
    for i, (judge, by) in enumerate(judges_with_order(metrics).items()):
        kinds = {
            kind: dict(zip(map(system_name, MODELS), (found.before, found.after), strict=True))
            for kind, found in kinds_of_texts(metrics, by).items()
        }
        drawn.append(
            rates_plot(
                f"order-{i}",
                f"How often the better of two texts is the likelier one, judge {judge}",
                [
                    (_named(name, kind), e.pairwise_accuracy)
                    for kind, models in kinds.items()
                    for name, e in models.items()
                ],
                mine=_named(system_name(STUDENT), next(iter(kinds))),
                axis="% of pairs (dashed: a coin)",
            )
        )
        drawn += [_reliability_plot(f"reliable-{i}-{k}", judge, *e) for k, e in enumerate(kinds.items())]
    return [plot for plot in drawn if plot]


def _reliability_plot(name: str, judge: str, kind: str, models: Mapping[str, LikelihoodCalibration]) -> Plot | None:
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
    title = f"{_named('Confidence and how often it is right', kind)}, judge {judge}"
    return Plot(name, title, alt, 2.9, draw)


def _percent(bins: Sequence[ReliabilityBin], field: Literal["confidence", "value", "low", "high"]) -> list[float]:
    return [100 * getattr(b, field) for b in bins]


def _bin_in_words(b: ReliabilityBin) -> str:
    right = f"{number(b.value, scale=100)} % right ({interval(b, scale=100)}, {b.pairs:,} pairs)"
    return f"{number(b.confidence, scale=100)} % confident, {right}"
