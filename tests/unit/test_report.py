"""The report's words, tables, figures, choice of examples and model card."""

import re
from typing import Any

import pytest

from plad.evaluate.metrics import Difference, Estimate
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.judges.reference import ReferenceScorer
from plad.records import Example
from plad.report.markdown import escape, table_text
from plad.report.parts.blocks import BETTER, SAME, UNKNOWN, WORSE
from plad.report.parts.estimates import tone_of
from plad.report.parts.formatting import duration, harmless, interval, number, p_value, span
from plad.report.parts.run_facts import RunFacts, StageRecord
from plad.report.parts.verdict import verdict
from plad.report.sections.costs import stages_table, time_plot
from plad.report.sections.data import funnel_table
from plad.report.sections.judges import agreement_table, judged_table
from plad.report.sections.results import (
    by_length_table,
    differences_table,
    gain_plots,
    length_plot,
    power_table,
    results_table,
    texts_table,
    win_rate_plots,
)
from plad.report.sections.training import training_plots
from tests.support.written_runs import MANIFEST, TEN_EXAMPLES, curves, generations, log_rows, measured, stages, typed


def rate(value: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n, "wins": 1, "ties": 0, "losses": 0} | {
        "unjudged": 0
    }


def change(value: float, low: float, high: float, p: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "p": p, "n": n}


def metrics(gain: dict[str, Any], n: int = 100) -> dict[str, Any]:
    systems = {s: {"win_rate": {"reference": rate(v, n)}} for s, v in [("teacher", 0.5), ("student_sft", 0.3)]}
    systems["student"] = {"win_rate": {"reference": rate(0.42, n)}}
    to_teacher = change(-0.08, -0.15, -0.01, 0.02, n)
    return {
        "systems": systems,
        "differences": {
            "student - student_sft": {"win_rate": {"reference": gain}},
            "student - teacher": {"win_rate": {"reference": to_teacher}},
        },
    }


# -- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (0.4567, {"scale": 100}, "45.7"),
        (-0.02, {"scale": 100, "sign": True}, "−2.0"),
        (0.02, {"scale": 100, "sign": True}, "+2.0"),
        (-0.0001, {"scale": 100, "sign": True}, "0.0"),
        (1234.5, {}, "1,234.5"),
        (None, {}, "–"),
    ],
)
def test_numbers(value: float | None, options: dict[str, Any], text: str) -> None:
    assert number(value, **options) == text


def test_intervals_and_p_values() -> None:
    assert interval(Estimate(low=-0.031, high=0.1), scale=100, sign=True) == "−3.1 to +10.0"
    assert interval(Estimate()) == span(0.1, None) == ""
    assert [p_value(p) for p in (None, 0.0001, 0.0123, 0.5, 1.0)] == [
        "",
        "p < 0.001",
        "p = 0.012",
        "p = 0.50",
        "p = 1.00",
    ]
    assert [duration(s) for s in (4.21, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode 日本 🙂\n\ttab", "plain, ünïcode 日本 🙂\n\ttab"),
        ("\x1b[31mred", "␛[31mred"),
        ("a\x00b\x7f", "a␀b␡"),
        ("\u202eevil\u202c", "‹U+202E›evil‹U+202C›"),
        ("\u2066x\u2069 \u200f", "‹U+2066›x‹U+2069› ‹U+200F›"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
        ("\ud800", "‹U+D800›"),
        ("no\u00a0break", "no\u00a0break"),
        ("\x9b31m", "‹U+009B›31m"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


# -- verdict ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "tone"),
    [
        (change(0.12, 0.05, 0.19, 0.001), BETTER),
        (change(-0.12, -0.19, -0.05, 0.001), WORSE),
        (change(0.12, -0.01, 0.25, 0.07), SAME),
        (change(0.12, 0.001, 0.25, 0.06), SAME),  # interval and p-value must both say so
        (change(0.12, -0.001, 0.25, 0.04), SAME),
        (change(0.0, 0.0, 0.0, 1.0), SAME),
        ({"value": None, "low": None, "high": None, "p": None, "n": 0}, UNKNOWN),
    ],
)
def test_claims_need_both_interval_and_p_value(gain: dict[str, Any], tone: str) -> None:
    assert tone_of(Difference(**gain)) == tone


def test_verdict_says_what_the_numbers_say() -> None:
    better = verdict(typed(metrics(change(0.12, 0.05, 0.19, 0.001))))
    assert better.headline == "Distillation made the student better"
    assert better.sentence == (
        "The distilled student wins 42.0 % of the time against the human target, 12.0 points more than before "
        "distillation (95 % interval +5.0 to +19.0, p = 0.001; 100 test prompts, judge: reference)."
    )
    assert better.notes == (
        "The teacher wins 50.0 % of the time against the human target; the student is 8.0 points behind it "
        "(95 % interval −15.0 to −1.0, p = 0.020).",
    )
    assert [s.name for s in better.scores] == ["SFT student", "Distilled student", "Teacher"]
    worse = verdict(typed(metrics(change(-0.12, -0.19, -0.05, 0.001))))
    assert "12.0 points less than before" in worse.sentence
    assert (worse.tone, verdict(typed(metrics(change(0.01, -0.1, 0.1, 0.8)))).tone) == (WORSE, SAME)


def test_a_test_too_small_says_how_large_it_should_be() -> None:
    power = {"effect": 0.02, "sd": 0.4, "prompts_needed": 3140, "detectable": 0.112}
    found = verdict(typed(metrics({**change(0.02, -0.06, 0.1, 0.6), "power": power})))
    assert found.notes[0] == (
        "100 prompts can show a difference of about 11.2 points; one of this size would take about 3,140."
    )


def test_a_win_that_length_explains_is_doubted() -> None:
    equal = {"value": 0.03, "low": -0.04, "high": 0.1, "n": 100}
    found = verdict(typed(metrics({**change(0.12, 0.05, 0.19, 0.001), "length_controlled": equal})))
    assert (
        found.notes[0]
        == "At equal length the difference is +3.0 points (−4.0 to +10.0): it may come from length alone."
    )
    kept = verdict(typed(metrics({**change(0.12, 0.05, 0.19, 0.001), "length_controlled": {**equal, "low": 0.01}})))
    assert not any("equal length" in note for note in kept.notes)


def test_few_prompts_are_said_to_be_few() -> None:
    assert "Only 12 prompts were compared" in verdict(typed(metrics(change(0.3, 0.1, 0.5, 0.01, 12), n=12))).notes[-1]


def test_other_judges_have_their_say() -> None:
    m = metrics(change(0.12, 0.05, 0.19, 0.001))
    m["systems"]["student"]["win_rate"]["rm"] = rate(0.4)
    m["differences"]["student - student_sft"]["win_rate"]["rm"] = change(-0.1, -0.2, -0.02, 0.03)
    assert any(n.startswith("Judge rm finds it worse: 10.0 points less") for n in verdict(typed(m)).notes)


def test_without_a_judge_rouge_decides_and_without_either_nothing_is_claimed() -> None:
    m = metrics(change(0.12, 0.05, 0.19, 0.001), n=0)
    assert verdict(typed(m)).tone == UNKNOWN
    m["systems"]["student"]["rougeL"] = rate(0.3)
    m["differences"]["student - student_sft"]["rougeL"] = change(0.05, 0.02, 0.08, 0.01)
    assert verdict(typed(m)).tone == BETTER
    assert "reaches a ROUGE-L of 30.0, 5.0 points more" in verdict(typed(m)).sentence
    assert verdict(typed(m)).measure.startswith("ROUGE-L")
    assert verdict(None).tone == UNKNOWN


def test_without_a_fine_tuned_student_only_the_win_rate_is_given() -> None:
    m = metrics(change(0.1, 0.0, 0.2, 0.5))
    m["differences"] = {}
    found = verdict(typed(m))
    assert found.tone == UNKNOWN
    assert "wins 42.0 % of the time against the human target (95 % interval 32.0 to 52.0" in found.sentence


# -- tables and figures -----------------------------------------------------------------------------


def test_results_table_has_every_system_in_reading_order_and_flags_small_samples() -> None:
    table = results_table(typed(measured()))
    assert [row[0].text for row in table.rows] == [
        "Human target",
        "Teacher",
        "SFT student",
        "Distilled student",
        "further",
    ]
    assert table.columns[1] == "Win rate, reference"
    teacher = table.rows[1][1]
    assert (teacher.text, teacher.detail) == ("100.0", "72.2 to 100.0 n = 10")


def test_differences_table_colours_only_what_the_numbers_bear() -> None:
    table = differences_table(typed(measured()))
    assert table.columns[1] == "Distilled student − SFT student"
    tones = {row[0].text: row[1].tone for row in table.rows}
    assert tones["ROUGE-1"] == BETTER
    assert tones["Words"] == ""  # longer is neither better nor worse


def test_what_the_judges_and_the_lengths_say_has_its_tables() -> None:
    m = measured()
    judged = judged_table(typed(m))
    assert judged.columns[-2:] == ("At equal length", "Sign test p")
    assert (judged.rows[0][-2].text, judged.rows[0][-1].text) == ("100.0", "0.002")  # 2 / 2^10
    assert power_table(typed(m)) is None  # every prompt moved alike: no spread to plan with
    power = {"effect": 0.02, "sd": 0.4, "prompts_needed": 3140, "detectable": 0.112}
    table = power_table(typed(metrics({**change(0.02, -0.06, 0.1, 0.6), "power": power})))
    assert table is not None
    assert [c.text for c in table.rows[0]] == [
        "Distilled student − SFT student",
        "+2.0",
        "100",
        "3,140",
        "11.2",
    ]
    texts = texts_table(typed(m))
    assert texts is not None
    assert texts.rows[0][0].text == "Human target"


def test_gains_by_length_are_drawn_bin_by_bin() -> None:
    bins = [
        {"words_above": None, "words_to": 20, **change(0.2, 0.1, 0.3, 0.01, 40)},
        {"words_above": 20, "words_to": 30, **change(-0.1, -0.3, 0.1, 0.3, 12)},
        {"words_above": 30, "words_to": None, "value": None, "low": None, "high": None, "p": None, "n": 0},
    ]
    m = metrics({**change(0.12, 0.05, 0.19, 0.001), "by_length": bins})
    (plot,) = gain_plots(typed(m))
    assert plot.alt == (
        "up to 20 words (n = 40) +20.0 points (10.0 to 30.0); 21 to 30 words (n = 12) −10.0 points (−30.0 to 10.0)"
    )
    assert gain_plots(typed(m), methods=True) == []
    m["differences"]["seqkd - student_sft"] = m["differences"]["student - student_sft"]
    m["comparison"] = {"methods": ["seqkd"]}
    (other,) = gain_plots(typed(m), methods=True)
    assert (other.title, other.alt) == ("Gain by length, SeqKD, judge reference", plot.alt)
    both = by_length_table(typed(m))
    assert both is not None
    assert [row[0].text for row in both.rows][::3] == ["Distilled student, up to 20 words", "SeqKD, up to 20 words"]
    del m["differences"]["seqkd - student_sft"]
    table = by_length_table(typed(m))
    assert table is not None
    assert [[c.text for c in row] for row in table.rows] == [
        ["up to 20 words", "40", "+20.0"],
        ["21 to 30 words", "12", "−10.0"],
        ["over 30 words", "0", "–"],
    ]


def test_of_several_judges_each_row_names_its_own() -> None:
    m = metrics({**change(0.12, 0.05, 0.19, 0.001), "power": {"detectable": 0.1, "prompts_needed": 90}})
    gains = m["differences"]["student - student_sft"]["win_rate"]
    gains["rm"] = gains["reference"]
    table = power_table(typed(m))
    assert table is not None
    assert [row[0].text for row in table.rows] == [
        "Distilled student − SFT student, reference",
        "Distilled student − SFT student, rm",
    ]


def test_judges_that_agree_by_chance_are_seen_to() -> None:
    pair = {"same": 0.61, "kappa": 0.204, "low": 0.1, "high": 0.31, "n": 300}
    table = agreement_table(typed({"agreement": {"reference and llm": pair}}))
    assert table is not None
    assert [(c.text, c.detail) for c in table.rows[0]] == [
        ("reference and llm", ""),
        ("61.0 %", ""),
        ("0.20", "0.10 to 0.31"),
        ("300", ""),
    ]
    assert agreement_table(typed({})) is agreement_table(typed({"agreement": {}})) is None


def test_time_is_drawn_where_there_was_any() -> None:
    plot = time_plot(stages(MANIFEST))
    assert plot is not None
    assert plot.alt == "sft 30 min 34 s; generate 15 min 12 s; distill 25 min 1 s"
    assert time_plot({"data": StageRecord(seconds=0.1)}) is None


def test_a_judge_that_judged_nothing_has_no_column_but_a_warning() -> None:
    rows = [Example(e.id, e.prompt, e.references[:1]) for e in TEN_EXAMPLES]
    answers = {s: generations(rows, ["word1 a"] * 10) for s in ("student_sft", "student")}
    found = evaluate_systems(rows, answers, [ReferenceScorer()], bootstrap=Bootstrap(50))[0].to_json()
    assert "Win rate, reference" not in results_table(typed(found)).columns
    assert "Win rate, reference" not in [row[0].text for row in differences_table(typed(found)).rows]
    (reason,) = [w for w in found["warnings"] if w.startswith("judge reference has no win rate against the human")]
    assert "no row has a second reference" in reason


def test_funnel_counts_every_row_and_pair() -> None:
    table = funnel_table(RunFacts("run", stages(MANIFEST)))
    assert table is not None
    shown = {row[0].text: row[1].text for row in table.rows}
    assert shown["Training rows in the file"] == "240"  # 120 + 118 + 2 skipped
    assert shown["Skipped as invalid"] == "2"
    assert int(shown["Pairs sampled"]) == 236 == 159 + 71 + 6
    assert funnel_table(RunFacts("run")) is None


def test_stage_times_add_up() -> None:
    table = stages_table(RunFacts("run", stages(MANIFEST)))
    assert table is not None
    assert [table.rows[-1][0].text, table.rows[-1][1].text] == ["all", "1 h 10 min"]


def test_figures_are_the_same_each_time_and_carry_no_address() -> None:
    m = typed(measured())
    plots = [*win_rate_plots(m), length_plot(m), *training_plots(log_rows(curves()))]
    assert len(plots) == 1 + 1 + 9
    for plot in plots:
        assert plot is not None
        assert plot.svg == plot.svg
        assert plot.svg.startswith("<svg viewBox=")
        assert plot.svg.endswith("</svg>")
        assert "http" not in plot.svg
        assert "#0102" not in plot.svg  # every placeholder became a colour of the page
        assert "var(--ink)" in plot.svg or "var(--soft)" in plot.svg
        assert plot.alt


def test_figure_shows_the_interval_it_is_given() -> None:
    (plot,) = win_rate_plots(typed(measured()))
    assert "Teacher 100.0 % (72.2 to 100.0)" in plot.alt
    assert ">100.0<" in plot.svg


def test_quantities_that_were_not_logged_have_no_figure() -> None:
    rows = [{"stage": "distill", "step": i, "loss": 1.0, "grad_norm": float("nan")} for i in range(3)]
    assert [p.title for p in training_plots(log_rows(rows))] == ["Distilling: loss"]
    assert (
        training_plots(log_rows([{"stage": "distill", "step": 3, "skipped": "non-finite loss", "rows": ["a"]}])) == []
    )


def test_markdown_cells_hold_no_markup() -> None:
    assert escape("a|b <script> `x` *y*\nz") == r"a\|b \<script\> \`x\` \*y\* z"
    lines = table_text(results_table(typed(measured()))).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
