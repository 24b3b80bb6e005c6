"""The measures of an evaluation by their names: `win_rate/JUDGE`, `rougeL`, `words` and the like."""

from collections.abc import Iterable
from typing import cast, get_args

from plad.evaluate.metrics import (
    Difference,
    Estimate,
    Metrics,
    SystemDifference,
    SystemFigures,
    TextMetric,
)
from plad.report.parts.blocks import Cell
from plad.report.parts.estimates import estimate_cell, share_cell
from plad.report.parts.formatting import METRICS

TEXT_METRICS: tuple[TextMetric, ...] = get_args(TextMetric)
WORDS = "words"


def judges_of(metrics: Metrics) -> list[str]:
    """All judges, in the order of the config."""
    return list(dict.fromkeys(j for s in metrics.systems.values() for j in s.win_rate))


def measures_of(evaluations: Iterable[Metrics]) -> dict[str, str]:
    """What a table of results shows of these evaluations: measure -> its name."""
    systems = [s for m in evaluations for s in m.systems.values()]
    judges = dict.fromkeys(j for s in systems for j, rate in s.win_rate.items() if rate.n)
    rouge = [m for m in TEXT_METRICS if m != WORDS and any(s.metric(m) is not None for s in systems)]
    return {
        **{f"win_rate/{j}": f"Win rate, {j}" for j in judges},
        **{m: METRICS[m] for m in rouge},
        WORDS: METRICS[WORDS],
        "truncated": "Cut off",
        "empty": "Empty",
    }


def scale_of(measure: str) -> float:
    """What turns a value of it into what is shown: percent, or words."""
    return 1.0 if measure == WORDS else 100.0


def estimate_of(system: SystemFigures | None, measure: str) -> Estimate | None:
    """What was measured of one system."""
    if system is None:
        return None
    judge = measure.partition("/")[2]
    return system.win_rate.get(judge) if judge else system.metric(cast("TextMetric", measure))


def difference_of(difference: SystemDifference | None, measure: str) -> Difference | None:
    """What was measured of the difference of two systems."""
    if difference is None:
        return None
    judge = measure.partition("/")[2]
    return difference.win_rate.get(judge) if judge else difference.metric(cast("TextMetric", measure))


def corrected(e: Difference) -> Difference:
    """With the p-value that the number of compared methods calls for."""
    return e if e.p_holm is None else e.model_copy(update={"p": e.p_holm})


def system_cells(name: str, system: SystemFigures, measures: Iterable[str]) -> tuple[Cell, ...]:
    """One system's row in a table of results."""
    shares = {"truncated": system.truncated, "empty": system.empty}
    return (
        Cell(name),
        *(
            share_cell(shares[m]) if m in shares else estimate_cell(estimate_of(system, m), scale=scale_of(m))
            for m in measures
        ),
    )


def judge_settings(metrics: Metrics) -> dict[str, dict[str, str]]:
    """What every judge is, in its own words, without what it counted."""
    judges = metrics.method.get("judges")
    return {
        name: {k: v for k, v in facts.items() if isinstance(v, str)}
        for name, facts in (judges.items() if isinstance(judges, dict) else ())
        if isinstance(facts, dict)
    }
