"""Runs that differ in their seed only, as a comparison page shows them: means over seeds and prompts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from plad.evaluate.metrics import Metrics
from plad.evaluate.seeds import mean_metrics, seed_groups
from plad.records import STUDENT, STUDENT_SFT
from plad.report.parts.blocks import Cell, ReportSection, Table, Text
from plad.report.parts.estimates import difference_cell, estimate_cell
from plad.report.parts.formatting import DASH, harmless, number, system_name
from plad.report.parts.measures import WORDS, difference_of, estimate_of, measures_of, scale_of

_NOTE = (
    "Means over seeds and prompts in %, words in words; the intervals hold for further seeds and further prompts. The "
    "last column is how far the gains of single seeds spread (standard deviation)."
)

Means = Sequence[tuple[Sequence[str], Metrics]]
"""Names of the runs of each group, and the means over them."""


def seed_means(runs: Mapping[str, Path]) -> Means:
    """The means of every group of runs that differ in their seed only."""
    groups = seed_groups(runs)
    return [(names, mean_metrics({n: runs[n] for n in names})) for names in groups]


def over_seeds(means: Means) -> ReportSection | None:
    """What distillation gained over the seeds of each group; None where no runs differ in their seed only."""
    rows = tuple(row for group, mean in means for row in _rows(group if len(means) > 1 else (), mean))
    columns = ("Measure", system_name(STUDENT_SFT), system_name(STUDENT), "Gain", "Spread of the gain")
    if not rows:
        return None
    warnings = tuple(w for _, mean in means for w in mean.warnings)
    return ReportSection("seeds", "Over seeds", "Seeds", (Text(_NOTE), Table("Over seeds", columns, rows)), warnings)


def _rows(group: Sequence[str], mean: Metrics) -> Iterator[tuple[Cell, ...]]:
    gains = mean.difference(STUDENT, STUDENT_SFT)
    of_group = f" ({', '.join(group)})" if group else ""
    duels = gains.against if gains else {}
    for judge, duel in duels.items():
        name = f"{system_name(STUDENT)} against {system_name(STUDENT_SFT)}, {judge}{of_group}"
        spread = Cell(number(duel.sd_seeds, scale=100))
        yield Cell(harmless(name)), Cell(DASH), estimate_cell(duel, scale=100), Cell(DASH), spread
    for measure, title in measures_of([mean]).items():
        gain = None if measure in ("truncated", "empty") else difference_of(gains, measure)
        if gain is None or gain.value is None:
            continue
        scale = scale_of(measure)
        yield (
            Cell(harmless(f"{title}{of_group}")),
            *(estimate_cell(estimate_of(mean.systems.get(s), measure), scale=scale) for s in (STUDENT_SFT, STUDENT)),
            difference_cell(gain, scale, judged=measure != WORDS),
            Cell(number(gain.sd_seeds, scale=scale)),
        )
