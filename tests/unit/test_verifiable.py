"""Right or wrong by a rule: numbers, texts, patterns, and a person's own function."""

import gzip
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from plad.errors import ConfigError, DataError
from plad.judges.base import JudgeResources
from plad.judges.verifiable import VerifiableJudge as Section
from plad.judges.verifiable import final_number, function_fingerprint, load_function
from plad.records import Example

GSM8K = Path(__file__).parents[1] / "data/gsm8k_teacher_student.jsonl.gz"
MARKERS = ("####", "A:")


def judged(section: Section, answer: str, *references: str) -> float | None:
    (score,) = section.open(JudgeResources()).score([Example("row", "question", references)], [answer], [()])
    return score


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16 - 3 - 4 = 9 eggs, so 9 * 2 = $18 a day", "18"),  # without a marker the last
        ("She makes 18\n#### 1,234", "1234"),
        ("A: 4 dollars, which is 400 cents", "4"),  # behind a marker the first
        ("A: 3\nNo, wait.\nA: 5", "5"),
        ("costs $1,234,567.50.", "1234567.5"),
        ("1\u202f234\u00a0567 km", "1234567"),
        ("about \u22123 \u00b0C", "-3"),
        ("a loss of -$2.50", "-2.5"),
        ("5-3", "3"),
        ("50%", "50"),
        ("18cm", "18"),
        ("3/4", "3/4"),
        (".5", "0.5"),
        ("1.5e3", "1500"),
        ("\uff11\uff18", "18"),
        ("made in the USA: 5, or 6", "6"),  # no marker inside a word
        ("3.", "3"),
        ("12,34,5", "5"),
    ],
)
def test_the_number_a_text_ends_up_with(text: str, number: str) -> None:
    assert final_number(text, MARKERS) == Fraction(number)


@pytest.mark.parametrize("text", ["", "none at all", "x2", "version v1.2.3", "9" * 5000])
def test_a_text_without_a_number_has_none(text: str) -> None:
    assert final_number(text, MARKERS) is None


def test_numbers_agree_within_the_tolerance() -> None:
    assert judged(Section(), "0.3000000001", "0.3") == 1.0
    assert judged(Section(), "0.3001", "0.3") == 0.0
    assert judged(Section(tolerance=0.01), "0.3001", "0.3") == 1.0
    assert judged(Section(tolerance=0), "0", "#### 0.0") == 1.0


def test_any_reference_makes_an_answer_right() -> None:
    assert judged(Section(), "A: 4", "#### 3", "#### 4") == 1.0


def test_an_answer_without_a_number_is_wrong_and_a_row_without_one_unjudged() -> None:
    assert judged(Section(), "I don't know", "#### 3") == 0.0
    assert judged(Section(), "", "#### 3") == 0.0
    assert judged(Section(), "3", "no number") is None
    assert judged(Section(), "3") is None
    assert judged(Section(), "3", "no number", "3") == 1.0


def test_exact_compares_what_stands_behind_the_marker() -> None:
    section = Section(match="exact", markers=("Answer:",))
    assert judged(section, "Thinking.\nAnswer:  the  Loire ", "Answer: The Loire") == 1.0
    assert judged(section, "The Loire", "the loire") == 1.0
    assert judged(section, "The Loire.", "the loire") == 0.0
    assert judged(Section(match="exact", ignore_case=False), "a", "A") == 0.0


def test_regex_compares_what_the_pattern_finds_last() -> None:
    section = Section(match="regex", pattern=r"\\boxed\{([^}]*)\}")
    assert judged(section, r"\boxed{y} or rather \boxed{X + 1}", r"\boxed{x + 1}") == 1.0
    assert judged(section, "x + 1", r"\boxed{x + 1}") == 0.0
    assert judged(section, r"\boxed{x}", "x") is None
    whole = Section(match="regex", pattern=r"\b[A-D]\b", ignore_case=False)
    assert judged(whole, "A or B? B", "B") == 1.0


def test_a_pattern_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plad.judges.verifiable.PATTERN_S", 0.05)
    with pytest.raises(ConfigError, match="repeats inside repeats"):
        judged(Section(match="regex", pattern="(a|a)+$"), "a" * 40 + "b", "a" * 40 + "b")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"match": "regex"}, "belong together"),
        ({"pattern": "x"}, "belong together"),
        ({"match": "regex", "pattern": "("}, "not a regular expression"),
        ({"function": "os:system"}, "Extra inputs"),
        ({"_function": "os:system"}, "Extra inputs"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Section(**settings)


FUNCTION = """
def verify(prompt, answer, references):
    if answer == "boom":
        raise KeyError("no such thing")
    return {"yes": True, "no": 0, "maybe": None}.get(answer, "what?")
"""


@pytest.fixture
def function(tmp_path: Path) -> str:
    (tmp_path / "checks.py").write_text(FUNCTION)
    return f"{tmp_path}/checks.py:verify"


def test_a_function_of_the_command_line_says_what_is_right(function: str) -> None:
    section = Section(match="function").placed(Path(), function)
    assert [judged(section, text) for text in ("yes", "no", "maybe")] == [1.0, 0.0, None]
    for text, said in (("boom", "KeyError: 'no such thing'"), ("else", "returned 'what?'")):
        with pytest.raises(DataError, match=re.escape(said)) as e:
            judged(section, text)
        assert e.value.where == f"--verify {function}, row row"


def test_a_function_may_be_named_by_its_module() -> None:
    assert load_function("math:isfinite")(3)


def test_a_judge_that_needs_a_function_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError, match="a config never names code"):
        Section(match="function").open(JudgeResources())


@pytest.mark.parametrize(
    "spec", ["nothing", "math:", ":f", "math:no_such", "no_such_module_x:f", "/no/such.py:f", "math:a.b"]
)
def test_a_function_that_is_not_there_is_named(spec: str) -> None:
    with pytest.raises(ConfigError) as e:
        load_function(spec)
    assert e.value.where == f"--verify {spec}"


def test_a_functions_fingerprint_is_its_text_and_not_its_place(function: str, tmp_path: Path) -> None:
    before = function_fingerprint(function)
    moved = tmp_path / "elsewhere/other.py"
    moved.parent.mkdir()
    moved.write_text(FUNCTION)
    assert function_fingerprint(f"{moved}:verify") == before
    moved.write_text(FUNCTION + "\n")
    assert function_fingerprint(f"{moved}:verify") != before


def test_a_function_is_of_no_use_to_another_rule(function: str) -> None:
    assert Section().placed(Path(), function).function is None


def test_on_gsm8k_every_verdict_is_the_published_one() -> None:
    with gzip.open(GSM8K, "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    examples = [Example(r["id"], r["prompt"], (r["reference"],)) for r in rows]
    judge = Section().open(JudgeResources())
    for who in ("teacher", "student", "teacher_verified", "student_verified"):
        scores = judge.score(examples, [r[who] for r in rows], [])
        assert scores == [float(r[f"{who}_correct"]) for r in rows], who
