"""The sections of a report, in its order; each is a function of a run's facts, and None where the run lacks it."""

from collections.abc import Callable

from plad.report.parts.blocks import ReportSection
from plad.report.parts.run_facts import RunFacts
from plad.report.sections.calibration import calibration
from plad.report.sections.costs import costs
from plad.report.sections.data import data
from plad.report.sections.distilled import distilled
from plad.report.sections.examples import examples
from plad.report.sections.how import how
from plad.report.sections.judges import judges
from plad.report.sections.results import results
from plad.report.sections.training import training

SECTIONS: tuple[Callable[[RunFacts], ReportSection | None], ...] = (
    distilled,
    results,
    calibration,
    training,
    data,
    costs,
    examples,
    judges,
    how,
)
