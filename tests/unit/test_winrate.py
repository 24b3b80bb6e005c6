"""Win rates, differences and the whole of evaluate_systems on data a reader can check."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plad.errors import DataError
from plad.evaluate.files import read_answers, read_judgements, write_answers, write_judgements
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap, wilson
from plad.evaluate.winrate import judge_pairs, reference_win_rate
from plad.judges.reference import ReferenceScorer
from plad.records import Example, Generation, Judgement, Outcome, Verdict

EXAMPLES = [
    Example("a", "P", ("red green", "blue sky", "blue sea")),
    Example("b", "P", ("blue sky", "blue sky")),
    Example("c", "P", ("one two",)),  # one reference: the reference judge can't judge
    Example("d", "P", ("red", "blue sky")),
]


class LengthJudge:
    """Prefers the longer text."""

    name = "length"

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        return [float(len(t)) for t in texts]

    def describe(self) -> dict[str, Any]:
        return {"type": "length", "scored": 1, "truncated": 0}


def answers(texts: Sequence[str], outcome: Outcome = Outcome.OK) -> dict[str, Generation]:
    return {e.id: Generation(e.id, 0, t, (1,), outcome, 1) for e, t in zip(EXAMPLES, texts, strict=True)}


def test_reference_win_rate_by_hand() -> None:
    """a: "blue sea" hits a reference, the target hits none: win. b: same score: tie. c: unjudged. d: both 0: tie."""
    rate = reference_win_rate(EXAMPLES, ["blue sea", "blue sky", "one two", "green"])
    assert (rate.n, rate.wins, rate.ties, rate.losses, rate.unjudged) == (3, 1, 2, 0, 1)
    assert rate.value == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_the_target_is_never_among_the_references_it_is_judged_by() -> None:
    """The target's own words would score 1.0 if the target were a reference; here they score as the target does."""
    rate = reference_win_rate(EXAMPLES[:1], ["red green"])
    assert (rate.wins, rate.ties, rate.losses) == (0, 1, 0)


def test_nothing_to_judge_gives_none() -> None:
    rate = reference_win_rate(EXAMPLES[2:3], ["x"])
    assert (rate.value, rate.low, rate.high, rate.n, rate.unjudged) == (None, None, None, 0, 1)
    assert reference_win_rate([], []).n == 0


def test_one_judged_row_gets_a_wilson_interval() -> None:
    rate = reference_win_rate(EXAMPLES[:1], ["blue sea"])
    assert (rate.value, rate.low, rate.high) == pytest.approx((1.0, *wilson(1, 1)))


def test_evaluate_systems_end_to_end() -> None:
    metrics, judgements = evaluate_systems(
        EXAMPLES,
        {
            "teacher": answers(["blue sea", "blue sky", "one two", "blue sky"]),
            "student_sft": answers(["red", "red", "red", "red"], Outcome.TRUNCATED),
            "student": answers(["blue sea", "red", "red", "blue sky"]),
            "other": answers(["", "", "", ""], Outcome.EMPTY),
        },
        [ReferenceScorer(), LengthJudge()],
        bootstrap=Bootstrap(200),
    )
    json.dumps(metrics.to_json(), allow_nan=False)
    student = metrics.systems["student"]
    win = student.win_rate["reference"]
    assert (win.wins, win.ties, win.losses, win.unjudged, win.n) == (2, 0, 1, 1, 3)
    assert win.value == pytest.approx(2 / 3)
    assert student.win_rate["length"].n == 4  # rows with one reference are judged too
    assert student.rougeL.value == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert student.same_as_sft == 0.5
    assert (metrics.systems["student_sft"].truncated, metrics.systems["other"].empty) == (1.0, 1.0)
    assert "same_as_sft" not in metrics.systems["student_sft"].to_json()
    assert set(metrics.differences) == {
        "student - student_sft",
        "student - teacher",
        "student - other",
        "other - student_sft",
    }
    difference = metrics.differences["student - student_sft"].win_rate["reference"]
    assert difference.n == 3  # SFT: a tie, b loss, d tie; student: a win, b loss, d win
    assert difference.value == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert difference.p == 2 / 4
    assert {(j.system, j.judge) for j in judgements} == {
        (s, j) for s in ("teacher", "student_sft", "student", "other") for j in ("reference", "length")
    }
    assert len(judgements) == 4 * 3 + 4 * 4
    assert any("reference could not judge 1 of 4" in w for w in metrics.warnings)
    assert any("only 4 test prompts" in w for w in metrics.warnings)


def test_target_meets_only_the_other_references() -> None:
    """a: "red green" meets two blues: 0. b: the other reference is equal: 1. c: has no other, left out. d: 0."""
    metrics, _ = evaluate_systems(EXAMPLES, {}, [], bootstrap=Bootstrap(100))
    target = metrics.systems["target"]
    assert (target.rougeL.value, target.rougeL.n) == (pytest.approx(1 / 3), 3)
    assert (target.words.value, target.words.n) == (pytest.approx(7 / 4), 4)
    assert target.win_rate == {}


def test_two_identical_systems_do_not_differ() -> None:
    texts = ["blue sea", "red", "one", "blue"]
    metrics, _ = evaluate_systems(
        EXAMPLES,
        {"student": answers(texts), "student_sft": answers(texts)},
        [ReferenceScorer()],
        bootstrap=Bootstrap(100),
    )
    difference = metrics.differences["student - student_sft"]
    for d in (difference.win_rate["reference"], difference.rouge1, difference.rougeL, difference.words):
        assert (d.value, d.p) == (0.0, 1.0)


@pytest.mark.parametrize("rows", [[], [Example("a", "P")], EXAMPLES[2:3]])
def test_nothing_to_measure_is_said_without_nan(rows: list[Example]) -> None:
    generations = {e.id: Generation(e.id, 0, "x", (1,), Outcome.OK, 1) for e in rows}
    metrics, judgements = evaluate_systems(
        rows, {"student": generations, "student_sft": generations}, [ReferenceScorer()], bootstrap=Bootstrap(50)
    )
    text = json.dumps(metrics.to_json(), allow_nan=False)
    assert "NaN" not in text
    assert metrics.systems["student"].win_rate["reference"].value is None
    assert {(j.system, j.opponent) for j in judgements} <= {("student", "student_sft")}, "no row meets its target"
    assert metrics.differences["student - student_sft"].win_rate["reference"].p is None


def test_rouge_can_be_left_out() -> None:
    metrics, _ = evaluate_systems(EXAMPLES, {"student": answers(["a"] * 4)}, [], bootstrap=Bootstrap(50), rouge=False)
    assert "rougeL" not in metrics.systems["student"].to_json()
    assert metrics.systems["student"].words.value == 1.0


def test_the_same_seed_gives_the_same_metrics() -> None:
    systems = {"student": answers(["blue sea", "red", "one two", "sky"]), "student_sft": answers(["red"] * 4)}
    runs = [evaluate_systems(EXAMPLES, systems, [ReferenceScorer()], bootstrap=Bootstrap(300, 5)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_bad_input_is_refused_with_the_row() -> None:
    with pytest.raises(DataError, match="2 of 4 test rows have no answer of student"):
        evaluate_systems(EXAMPLES, {"student": {k: v for k, v in answers(["x"] * 4).items() if k in "ab"}}, [])
    with pytest.raises(DataError, match="no system may be called so"):
        evaluate_systems(EXAMPLES, {"target": answers(["x"] * 4)}, [])
    with pytest.raises(DataError, match="row a: the id occurs twice"):
        evaluate_systems([EXAMPLES[0], EXAMPLES[0]], {}, [])


def test_teacher_student_rate_uses_all_references_and_weighs_prompts_alike() -> None:
    """a twice: teacher wins, then ties: 0.75. c has one reference and is judged: loss. Mean (0.75 + 0) / 2."""
    a, c = EXAMPLES[0], EXAMPLES[2]
    rates, judgements = judge_pairs(
        [a, a, c, Example("e", "P")],
        ["red green", "blue sea", "x", "x"],
        ["x", "blue sky", "one two", "y"],
        [ReferenceScorer()],
        bootstrap=Bootstrap(100),
    )
    rate = rates["reference"]
    assert rate.value == pytest.approx((0.75 + 0) / 2)
    assert (rate.n, rate.wins, rate.ties, rate.losses, rate.unjudged) == (2, 1, 1, 1, 1)
    assert {(j.system, j.opponent) for j in judgements} == {("teacher", "student_sft")}


def test_equal_texts_tie_whatever_their_scores() -> None:
    class Drifting(LengthJudge):
        """Rounds differently at each call."""

        calls = 0

        def score(
            self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
        ) -> list[float | None]:
            self.calls += 1
            return [1.0 + self.calls * 1e-9] * len(texts)

    rates, _ = judge_pairs(EXAMPLES[:1], ["same"], ["same"], [Drifting()], bootstrap=Bootstrap(10))
    assert rates["length"].ties == 1


def test_judgements_survive_the_file(tmp_path: Path) -> None:
    rows = [
        Judgement("a", "reference", "student", "target", Verdict.WIN, 0.75, 0.5),
        Judgement("ü\n", "rm", "student", "target", Verdict.TIE, -1.25, -1.25),
    ]
    write_judgements(tmp_path / "eval" / "judgements.parquet", rows)
    assert read_judgements(tmp_path / "eval" / "judgements.parquet") == rows
    write_judgements(tmp_path / "none.parquet", [])
    assert read_judgements(tmp_path / "none.parquet") == []


def test_answers_survive_the_file(tmp_path: Path) -> None:
    file = tmp_path / "eval" / "answers.jsonl"
    write_answers(file, EXAMPLES[:2], {"student": answers(["line\u2028one\n", "日本", "x", "y"])})
    rows = list(read_answers(file))
    assert rows[0] == {"id": "a", "answers": {"student": {"text": "line\u2028one\n", "outcome": "ok", "tokens": 1}}}
    assert [r["id"] for r in rows] == ["a", "b"]


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', '{"id": 1, "answers": {}}'])
def test_damaged_answers_name_the_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "a", "answers": {}}\n' + line + "\n")
    with pytest.raises(DataError, match=r"answers\.jsonl:2"):
        list(read_answers(file))
