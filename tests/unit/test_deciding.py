"""What decides, by the shape of the data: weights, trials and rounds on validation, systems on the test set."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from plad.cli.compare import compare_view
from plad.cli.validate.run import validation_view
from plad.config.judges import JudgeSection
from plad.errors import Finding, Findings
from plad.evaluate.deciding import decision, with_comparison
from plad.evaluate.metrics import Cost, Metrics
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.judges.base import kind_of
from plad.judges.measure import most, of_systems, of_weights
from plad.judges.reference import ReferenceScorer
from plad.pipeline.stages.rounds import stop_reason
from plad.records import Example
from plad.report.parts.blocks import BETTER, SAME
from plad.report.parts.formatting import p_value
from plad.report.parts.next_steps import another_round
from plad.report.parts.run_facts import RunFacts
from plad.report.parts.verdict import verdict
from plad.report.sections.distilled import against_seqkd
from plad.report.sections.results import against_table, power_table, results, results_table
from plad.report.terminal import systems_table
from plad.train.validation import told
from tests.support.written_runs import generations

ONE = [Example(f"r{i}", "P", ("blue sky above",)) for i in range(12)]
TWO = [Example(f"r{i}", "P", ("blue sky above", "blue sea")) for i in range(12)]
NONE = [Example(f"r{i}", "P") for i in range(12)]
SECTIONS: dict[str, dict[str, Any]] = {
    "reference": {"type": "reference"},
    "embedding": {"type": "embedding", "model": "m"},
    "reward": {"type": "reward", "model": "m"},
    "llm": {"type": "llm", "base_url": "http://x/v1", "model": "m"},
    "number": {"type": "verifiable", "match": "number"},
    "function": {"type": "verifiable", "match": "function"},
}


def judges(*names: str) -> list[JudgeSection]:
    return [JudgeSection.model_validate(SECTIONS[name]) for name in names]


@pytest.mark.parametrize(
    ("named", "rows", "weights", "systems"),
    [
        (["reference"], TWO, "win_rate", "win_rate"),
        (["reference"], ONE, "rougeL", "against"),
        (["reference"], NONE, "none", "none"),
        (["embedding"], ONE, "rougeL", "against"),
        (["reward"], ONE, "win_rate", "win_rate"),
        (["llm"], ONE, "win_rate", "win_rate"),
        (["reward"], NONE, "none", "against"),
        (["function"], ONE, "win_rate", "win_rate"),
        (["number"], ONE, "rougeL", "rougeL"),  # no number to compare with
        (["number"], [Example("a", "P", ("It is 7.",))], "win_rate", "win_rate"),
        (["reference", "llm"], ONE, "rougeL", "win_rate"),  # the first judge alone chooses weights
        ([], ONE, "rougeL", "rougeL"),
        ([], NONE, "none", "none"),
        (["reference"], [*TWO[:6], *ONE[6:]], "win_rate", "win_rate"),
        (["reference"], [*TWO[:5], *ONE[5:]], "rougeL", "against"),
    ],
)
def test_the_shape_of_the_rows_says_what_decides(
    named: list[str], rows: list[Example], weights: str, systems: str
) -> None:
    sections = judges(*named)
    assert (of_weights(sections, rows).name, of_systems(sections, rows).name) == (weights, systems)


def test_measures_have_words_and_say_whether_they_see_only_likeness() -> None:
    reference = judges("reference")
    assert of_weights(reference, TWO).words == "win rate against the human target, judge reference"
    assert of_weights(reference, ONE).words == "ROUGE-L with the target"
    assert of_weights([], TWO).words == "ROUGE-L with the references"
    assert of_systems(reference, ONE).words == "nearness to the target by ROUGE-L, system against system"
    assert of_systems(judges("reward"), NONE).words == "judge reward, system against system"
    seen = [of_weights(reference, TWO), of_systems(judges("reward"), NONE), of_systems(reference, ONE)]
    assert [m.likeness for m in seen] == [False, False, True]


def test_half_of_the_rows_are_enough_to_decide_and_none_are_not() -> None:
    assert [most(n, 10) for n in (0, 4, 5, 10)] == [False, False, True, True]
    assert not most(0, 0)


def test_a_function_is_not_called_to_count_rows() -> None:
    assert kind_of(judges("function")[0]).able(ONE, against_target=True) == 12


# -- systems against each other -----------------------------------------------------------------------

TEXTS: Mapping[str, list[str]] = {
    "teacher": ["blue sky above"] * 12,
    "student_sft": ["blue"] * 8 + ["blue sky"] * 3 + ["red"],
    "student": ["blue sky"] * 8 + ["blue sky", "blue", "blue", "green"],
    "seqkd": ["blue"] * 12,
}


def one_reference(rows: list[Example] = ONE, **more: Any) -> Metrics:
    systems = {name: generations(rows, texts) for name, texts in TEXTS.items()}
    return evaluate_systems(rows, systems, [ReferenceScorer()], bootstrap=Bootstrap(200), **more)[0]


def test_with_one_reference_the_nearer_answer_wins_and_equal_ones_tie() -> None:
    """Student against SFT student: 8 nearer, one equal, 2 farther, one pair of answers without a shared word."""
    metrics = one_reference()
    duel = metrics.differences["student - student_sft"].against["reference"]
    assert (duel.wins, duel.ties, duel.losses, duel.n) == (8, 2, 2, 12)
    assert duel.value == pytest.approx((8 + 2 / 2) / 12)
    assert duel.p == duel.sign_test_p == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # 8 or more of 10, on either side
    assert metrics.differences["student - teacher"].against["reference"].wins == 0
    assert set(metrics.differences) == {p for p, d in metrics.differences.items() if "reference" in d.against}
    assert all(s.win_rate["reference"].n == 0 for name, s in metrics.systems.items() if name != "target")
    assert metrics.method["decides"] == "nearness to the target by ROUGE-L, system against system"
    (reason,) = [w for w in metrics.warnings if w.startswith("judge reference")]
    assert "no row has a second reference" in reason
    assert "it compares the systems with each other instead" in reason


def test_with_further_references_nothing_is_compared_beside_the_target() -> None:
    metrics, judgements = evaluate_systems(
        TWO, {s: generations(TWO, t) for s, t in TEXTS.items()}, [ReferenceScorer()], bootstrap=Bootstrap(200)
    )
    assert {j.opponent for j in judgements} == {"target"}
    assert "against" not in json.dumps(metrics.to_json()["differences"])
    assert metrics.method["decides"] == "win rate against the human target, judge reference"
    assert "against" not in metrics.method


def test_without_references_and_without_a_judge_for_that_nothing_decides() -> None:
    metrics = one_reference(NONE)
    assert metrics.method["decides"] == "nothing: there is no reference, and no judge that does without"
    assert decision(metrics).measure.name == "none"
    assert verdict(metrics).scores == ()


def test_the_verdict_is_of_the_systems_against_each_other() -> None:
    told_of = verdict(one_reference())
    assert told_of.tone == SAME
    assert told_of.sentence == (
        "The distilled student is nearer to the target than the SFT student 75.0 % of the time, ties half (95 % "
        "interval 50.0 to 91.7, p = 0.11; 12 test prompts, by nearness to the target by ROUGE-L, system against "
        "system: no judge could compare with the human target)."
    )
    assert any(n.startswith("It is nearer to the target than the teacher 0.0 % of the time") for n in told_of.notes)
    assert any(n.startswith("ROUGE-L: ") for n in told_of.notes)
    assert told_of.measure == "ROUGE-L with the target"
    always = {**TEXTS, "student": ["blue sky above"] * 12}
    systems = {name: generations(ONE, texts) for name, texts in always.items()}
    better = evaluate_systems(ONE, systems, [ReferenceScorer()], bootstrap=Bootstrap(200))[0]
    assert (verdict(better).tone, verdict(better).headline) == (
        BETTER,
        "Distillation brought the student nearer to the target",
    )


def test_the_page_shows_who_beats_whom_with_p_values_for_all_methods() -> None:
    metrics = with_comparison(one_reference(), ["seqkd"], {"student": Cost(), "seqkd": Cost()})
    duel = metrics.differences["student - student_sft"].against["reference"]
    assert duel.p is not None
    assert duel.p_holm == pytest.approx(min(1.0, 2 * duel.p))
    table = against_table(metrics)
    assert table is not None
    assert table.rows[0][0].text == "Distilled student against SFT student"
    assert len(table.rows) == len(metrics.differences) == 4
    assert table.rows[0][1].text == "75.0"
    assert "Win rate, reference" not in results_table(metrics).columns
    needed = power_table(metrics)
    assert needed is not None
    assert (needed.rows[0][0].text, needed.rows[0][1].text) == ("Distilled student − SFT student", "+25.0")
    section = results(RunFacts("run", metrics=metrics))
    assert section is not None
    assert "Win rate: how often" not in str(section)
    (block,) = against_seqkd(RunFacts("run", metrics=metrics), metrics)
    beaten = metrics.differences["student - seqkd"].against["reference"]
    assert f"the student is nearer to the target than SeqKD {100 * (beaten.value or 0):.1f} % of the time" in str(block)
    assert p_value(beaten.p_holm) in str(block)
    assert Metrics.model_validate_json(json.dumps(metrics.to_json())) == metrics
    parts = [str(p) for p in compare_view({"run": metrics})]
    assert any("judge reference has no win rate against the human target" in p for p in parts)


def test_a_nearer_student_that_is_behind_its_teacher_may_learn_again() -> None:
    rows = [Example(f"e{i}", f"prompt {i}", ("blue sky above",)) for i in range(12)]
    texts = {"teacher": ["blue sky above"] * 12, "student_sft": ["red"] * 12, "student": ["blue sky"] * 12}
    systems = {name: generations(rows, given) for name, given in texts.items()}
    metrics = evaluate_systems(rows, systems, [ReferenceScorer()], rouge=False, bootstrap=Bootstrap(200))[0]
    assert "distill.rounds: 2" in (another_round(RunFacts("run", metrics=metrics)) or "")


def test_the_terminal_has_one_row_a_system() -> None:
    table = systems_table(decision(one_reference()))
    assert table.columns == ("System", "Beats SFT student", "ROUGE-L", "Words", "Cut off")
    assert [row[0].text for row in table.rows] == [
        "Human target",
        "Teacher",
        "SFT student",
        "Distilled student",
        "SeqKD",
    ]
    assert table.rows[3][1].text == "75.0"


def test_figures_of_an_earlier_version_are_read_as_they_were() -> None:
    """A judge that judged a few rows, and no systems against each other: its win rate decides, as it did."""
    rate = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 3}
    old = Metrics.model_validate({"n": 12, "systems": {"student": {"win_rate": {"reference": rate}}}})
    assert decision(old).measure.name == "win_rate"


# -- what choosers say --------------------------------------------------------------------------------


def test_a_win_rate_that_was_not_measured_is_not_told() -> None:
    assert told({"win_rate": 0.382, "rougeL": 0.251}) == "validation win rate 38.2 %, ROUGE-L 25.1"
    assert told({"rougeL": 0.251, "words": 9.0}) == "validation ROUGE-L 25.1"
    assert told({"words": 9.0}) == "nothing was measured on validation"


def test_rounds_end_by_the_measure_that_there_is() -> None:
    rate = {"value": 0.8, "low": 0.6, "high": 0.9, "n": 9}
    rounds: list[Any] = [{"validation": {"rougeL": 0.2}, "teacher_student": rate}] * 2
    assert stop_reason(rounds) == "the validation ROUGE-L no longer rises"


def test_warnings_stand_out_and_are_counted() -> None:
    findings = Findings(lines=[Finding("ok", "config", "c.yaml"), Finding("warn", "what decides", "only\nthis way")])
    assert list(validation_view(findings)) == [
        "ok    config: c.yaml",
        "WARN  what decides: only",
        "      -> this way",
        "not checked:",
        "1 warning, marked WARN above",
    ]
