"""Calibration on the page: the sentence, the tables, the figures."""

from typing import Any

import numpy as np
import pytest

from plad.evaluate.likelihood_calibration import RankedTexts
from plad.report.page import build_report
from plad.report.parts.blocks import Text
from plad.report.parts.run_facts import RunFacts
from plad.report.sections.calibration import (
    calibration,
    calibration_plots,
    calibration_sentences,
    calibration_table,
    changes_table,
    reliability_table,
)
from tests.support.written_runs import calibrated, calibration_section, typed


def test_the_sentence_says_what_changed_and_what_it_was_measured_on() -> None:
    """One pair a prompt: wrong before, right after. 0 % and 100 % of 12 pairs; p = 2 / 2^12."""
    before = [RankedTexts(np.array([-1.0, -2.0]), np.array([0.0, 1.0]))] * 12
    after = [RankedTexts(np.array([-2.0, -1.0]), np.array([0.0, 1.0]))] * 12
    head, figures, basis = calibration_sentences(typed({"calibration": calibration_section(before, after)}))
    assert head == "Distillation brought likelihood and quality closer together."
    assert figures.startswith(
        "The better of two texts was the likelier one in 0.0 % of pairs before distillation and in 100.0 % after it: "
        "100.0 points more (95 % interval +51.5 to +100.0, p < 0.001); calibration error 73.1 points before and 26.9 "
        "after it (−46.2, 95 % interval −46.2 to −46.2); judge: reference, 12 pairs."
    )
    assert basis == (
        "24 texts to 12 test prompts, sampled by the SFT student at temperature 0.7; 12 prompts had "
        "texts of different quality, 12 pairs in all. Left out: cut off 3, prompts with fewer than two texts 1."
    )


@pytest.mark.parametrize(
    ("gain", "head"),
    [
        (4.0, "Distillation brought likelihood and quality closer together."),
        (-4.0, "Distillation took likelihood and quality further apart."),
        (0.0, "No change in how likelihoods order texts that this test can tell from chance."),
    ],
)
def test_a_claim_needs_interval_and_p_value(gain: float, head: str) -> None:
    assert calibration_sentences(typed(calibrated(gain)))[0] == head


def test_every_measure_stands_before_and_after_with_its_paired_difference() -> None:
    table = calibration_table(typed(calibrated(4.0)))
    assert table is not None
    assert table.columns == ("Measure", "SFT student", "Distilled student", "Change")
    names = ["Pairwise accuracy, %", "Kendall's tau", "Spearman's rho", "Calibration error, points"]
    assert [row[0].text for row in table.rows] == names
    assert [row[3].tone for row in table.rows] == ["better", "better", "better", ""]
    assert " to " in table.rows[3][3].detail  # an interval and no p-value
    assert "p" not in table.rows[3][3].detail
    bins = reliability_table(typed(calibrated(4.0)))
    assert bins is not None
    assert bins.rows[0][0].text == "50 to 60 %"
    assert sum(int(row[2].text) for row in bins.rows) == 40 * 6  # pairs of four texts


def test_figures_hold_the_intervals_in_words() -> None:
    order, curve = calibration_plots(typed(calibrated(4.0)))
    assert order.title == "How often the better of two texts is the likelier one, judge reference"
    assert order.alt.count(" % (") == 2
    assert curve.alt.startswith("SFT student: ")
    assert "pairs)" in curve.alt
    assert calibration_plots(typed(calibrated(4.0))) == [order, curve]


@pytest.mark.parametrize("found", [{}, {"calibration": None}, calibrated(1.0, prompts=0)])
def test_without_an_order_to_be_found_there_is_nothing(found: dict[str, Any]) -> None:
    assert calibration_table(typed(found)) is reliability_table(typed(found)) is None
    assert (calibration_sentences(typed(found)), calibration_plots(typed(found))) == ((), [])


def pooled(gain: float, own: float, prompts: int = 40) -> dict[str, Any]:
    """Texts of a teacher among them: `gain` of all texts, `own` of the student's alone."""
    found = calibrated(gain)
    found["calibration"]["writers"] = ["student_sft", "teacher"]
    found["calibration"]["judges"]["reference"]["own"] = calibrated(own, prompts)["calibration"]["judges"]["reference"]
    return found


def test_a_gain_on_the_teachers_texts_makes_no_headline() -> None:
    """As the demo has it: pooled it looks like a success, on the student's own texts nothing is to be seen."""
    found = typed(pooled(4.0, 0.0))
    head, own, everything, _ = calibration_sentences(found)
    assert head.startswith("On the student's own texts: no change in how likelihoods order texts")
    assert own.startswith("Of two of the student's own texts the better one was the likelier one in ")
    assert everything.startswith("With the teacher's texts among them it was so in ")
    assert everything.endswith("and they are the better ones more often: that alone moves these figures.")
    assert "calibration error" in own
    assert "calibration error" in everything
    table = calibration_table(found)
    assert table is not None
    assert [row[0].text for row in table.rows] == [
        f"{name}, {kind}"
        for kind in ("own texts", "all texts")
        for name in ("Pairwise accuracy, %", "Kendall's tau", "Spearman's rho", "Calibration error, points")
    ]
    assert [row[3].tone for row in table.rows[:4:3]] == ["", ""]
    assert table.rows[4][3].tone == "better"
    order, own_curve, _ = calibration_plots(found)
    assert order.alt.startswith("SFT student, own texts ")
    assert own_curve.title == "Confidence and how often it is right, own texts, judge reference"
    runs = changes_table({"a": found})
    assert runs is not None
    assert [row[0].text for row in runs.rows] == ["a, own texts", "a, all texts"]


@pytest.mark.parametrize("own", ["none to be found", "not measured"])
def test_without_own_texts_to_order_there_is_no_headline(own: str) -> None:
    found = pooled(4.0, 1.0, prompts=0)
    if own == "not measured":
        del found["calibration"]["judges"]["reference"]["own"]
    head, everything, _ = calibration_sentences(typed(found))
    assert head == ""
    assert "that alone moves these figures" in everything
    section = calibration(RunFacts("run", metrics=typed(found)))
    assert section is not None
    assert all(block.tone != "lead" for block in section.blocks if isinstance(block, Text))


def test_each_of_two_judges_has_its_rows_and_figures() -> None:
    found = calibrated(4.0)
    found["calibration"]["judges"]["reward"] = found["calibration"]["judges"]["reference"]
    table = calibration_table(typed(found))
    assert table is not None
    assert [row[0].text for row in table.rows][3:5] == [
        "Calibration error, points, reference",
        "Pairwise accuracy, %, reward",
    ]
    assert len(calibration_plots(typed(found))) == 4


def test_without_a_judge_that_scores_texts_the_page_says_so() -> None:
    found = {
        "calibration": {**calibrated(1.0)["calibration"], "judges": {}},
        "differences": {},
        "systems": {},
        "method": {},
    }
    report = build_report(RunFacts("run", metrics=typed(found)))
    assert "calibration" not in [section.id for section in report.sections]
    assert "Left out, because the run has no judge that scores texts, for calibration." in [t for _, t in report.told()]
