"""Runs that differ in their seed only, as a comparison page shows them: means over seeds and prompts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plad.evaluate.run import SFT, STUDENT
from plad.evaluate.seeds import mean_metrics, seed_groups
from plad.report.sections.tables import Cell, Table, difference_cell, estimate_cell, results_columns
from plad.report.wording import harmless, number, system_name

NOTE = (
    "Means over seeds and prompts in %, words in words; the intervals hold for further seeds and further prompts. The "
    "last column is how far the gains of single seeds spread (standard deviation)."
)

Means = Sequence[tuple[Sequence[str], Mapping[str, Any]]]
"""Names of the runs of each group, and the means over them, in the shape of metrics.json."""


def seed_means(runs: Mapping[str, Path]) -> Means:
    """The means of every group of runs that differ in their seed only."""
    return [(group, mean_metrics({name: runs[name] for name in group}).to_json()) for group in seed_groups(runs)]


def seeds_table(means: Means) -> Table | None:
    """What distillation gained over the seeds of each group."""
    rows = tuple(row for group, mean in means for row in _rows(group if len(means) > 1 else (), mean))
    columns = ("Measure", system_name(SFT), system_name(STUDENT), "Gain", "Spread of the gain")
    return Table("Over seeds", columns, rows) if rows else None


def _rows(group: Sequence[str], mean: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    gains = mean["differences"].get(f"{STUDENT} - {SFT}", {})
    for measure, title in results_columns([mean]).items():
        kind, _, judge = measure.partition("/")
        gain, before, after = (
            found.get("win_rate", {}).get(judge) if judge else found.get(kind)
            for found in (gains, mean["systems"].get(SFT, {}), mean["systems"].get(STUDENT, {}))
        )
        if not isinstance(gain, Mapping) or gain.get("value") is None:
            continue
        scale = 1.0 if kind == "words" else 100.0
        yield (
            Cell(harmless(f"{title} ({', '.join(group)})" if group else title)),
            estimate_cell(before, scale=scale),
            estimate_cell(after, scale=scale),
            difference_cell(gain, scale, judged=kind != "words"),
            Cell(number(gain["sd_seeds"], scale=scale)),
        )
