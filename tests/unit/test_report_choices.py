"""What a report tells of choices on validation: rounds, and which training run the curves are of."""

from typing import Any

from plad.report.parts.run_facts import RunFacts, StageRecord
from plad.report.parts.stage_counts import RoundCounts
from plad.report.sections.training import kept_log, rounds_ended, rounds_plot, rounds_table, training_plots
from tests.support.written_runs import log_rows


def of_round(rate: float, teacher: float, **more: Any) -> dict[str, Any]:
    validation = {"win_rate": rate, "low": rate - 0.1, "high": rate + 0.1, "rougeL": 0.25, "words": 18.0, "ended": 0.9}
    against = {"value": teacher, "low": teacher - 0.1, "high": teacher + 0.1, "n": 40}
    return {"validation": validation, "teacher_student": against, "met_on": "validation", **more}


ROUNDS = [of_round(0.25, 0.7), of_round(0.4, 0.62, pairs=388), of_round(0.38, 0.6, pairs=401)]
COUNTS = {
    "rounds": ROUNDS,
    "kept_round": 1,
    "stopped": "the validation win rate no longer rises",
    "stage": "distill",
}


def facts(counts: dict[str, Any], log: list[dict[str, Any]] | None = None) -> RunFacts:
    return RunFacts("a", {"distill": StageRecord(counts=counts)}, log=tuple(log_rows(log or [])))


def rounds(counts: list[dict[str, Any]]) -> list[RoundCounts]:
    return [RoundCounts.model_validate(of_round) for of_round in counts]


def test_rounds_stand_in_a_table_with_the_kept_one_marked_and_why_they_ended() -> None:
    table = rounds_table(facts(COUNTS))
    assert table is not None
    assert [row[0].text for row in table.rows] == ["SFT student", "Round 1 (kept)", "Round 2"]
    assert [row[1].text for row in table.rows] == ["25.0 %", "40.0 %", "38.0 %"]
    assert (table.rows[1][1].tone, table.rows[2][1].tone) == ("better", "")
    against = table.rows[0][5]
    assert (against.text, against.detail) == ("70.0 %", "60.0 to 80.0")
    assert [row[6].text for row in table.rows] == ["–", "388", "401"]
    assert rounds_ended(facts(COUNTS)) == (
        "Teacher and student met on validation prompts, sampled as pairs are. "
        "The rounds ended: the validation win rate no longer rises."
    )
    assert rounds_table(facts({})) is None
    assert rounds_ended(facts({})) == ""


def test_the_curve_by_round_says_its_numbers_and_leaves_out_what_no_judge_saw() -> None:
    plot = rounds_plot(rounds(ROUNDS))
    assert plot is not None
    assert "student against the target: round 0 25.0 %, round 1 40.0 %, round 2 38.0 %" in plot.alt
    assert "teacher against the student: round 0 70.0 %" in plot.alt
    assert plot.svg == rounds_plot(rounds(ROUNDS)).svg  # type: ignore[union-attr]
    blind = [{"validation": {"rougeL": 0.2}, "teacher_student": {"value": None, "n": 0}}] * 2
    assert rounds_plot(rounds(blind)) is None
    assert rounds_plot([]) is None


def test_curves_are_those_of_the_training_run_that_was_kept() -> None:
    rows = [
        {"stage": "sft/teacher", "step": 1, "loss": 3.0},
        {"stage": "distill", "step": 1, "loss": 2.0},
        {"stage": "distill/round_2", "step": 1, "loss": 1.0},
    ]
    kept = kept_log(facts({"stage": "distill/round_2"}, rows))
    assert [(row.stage, row.values["loss"]) for row in kept] == [("sft/teacher", 3.0), ("distill", 1.0)]
    assert kept_log(facts({}, rows)) == tuple(log_rows(rows))


def test_what_is_watched_while_distilling_is_plotted() -> None:
    watched = {"ended": 0.9, "accuracy": 0.3, "chosen_logp": -2.0, "rejected_logp": -1.5, "words": 18.0}
    rows = [{"stage": "distill", "step": step, "validation": watched} for step in (0, 5)]
    assert [plot.title for plot in training_plots(log_rows(rows))] == [
        "While distilling: length on validation",
        "While distilling: ends on validation, order of a few pairs",
        "While distilling: log-probability a token of a few pairs",
    ]
    (teacher,) = training_plots(log_rows([{"stage": "sft/teacher", "step": 0, "validation": {"win_rate": 0.4}}]))
    assert teacher.title == "While fine-tuning the teacher: validation"
