"""Pseudo-preference pairs (Eq. 3) and what becomes of them as groups."""

from plad.config import DropRules
from plad.pairs import build_pairs, chosen_groups, pair_groups
from plad.policy.prompt import PromptFormat
from plad.records import Example, Generation, Outcome
from tests.helpers import tiny_policy


def said(text: str, sample: int = 0, outcome: Outcome = Outcome.OK, example: str = "a") -> Generation:
    return Generation(example, sample, text, (7, 8, 2), outcome, 3)


def pair_up(teacher: list[Generation], student: list[Generation], rules: DropRules | None = None):
    return build_pairs([Example("a", "x", ())], {"a": teacher}, {"a": student}, rules or DropRules())


def prompt_format() -> PromptFormat:
    return tiny_policy().prompt


def test_the_teacher_is_chosen_and_the_student_rejected() -> None:
    pairs, counts = pair_up([said("better")], [said("worse")])
    assert (pairs[0].chosen, pairs[0].rejected) == ("better", "worse")
    assert (pairs[0].chosen_source, pairs[0].rejected_source) == ("teacher", "student_sft")
    assert counts == {"candidates": 1, "pairs": 1}


def test_each_rule_drops_and_counts() -> None:
    teacher = [said("t")]
    student = [
        said("t ", 0),  # identical but for white space
        said("", 1, Outcome.EMPTY),
        said("cut", 2, Outcome.TRUNCATED),
        said("", 3, Outcome.TOO_LONG),
        said("fine", 4),
        said("fine", 5),
    ]
    pairs, counts = pair_up(teacher, student)
    assert [p.id for p in pairs] == ["a#4"]
    assert counts == {
        "candidates": 6,
        "pairs": 1,
        "dropped_identical": 1,
        "dropped_empty": 1,
        "dropped_truncated": 1,
        "dropped_too_long": 1,
        "dropped_repeated": 1,
    }


def test_rules_that_are_off_keep_the_pair() -> None:
    rules = DropRules(identical=False, truncated="teacher")
    pairs, _ = pair_up([said("t")], [said("t", 0), said("cut", 1, Outcome.TRUNCATED)], rules)
    assert [p.rejected for p in pairs] == ["t", "cut"]
    assert not pair_up([said("cut", outcome=Outcome.TRUNCATED)], [said("s")], rules)[0]


def test_student_samples_meet_teacher_samples_in_turn() -> None:
    pairs, _ = pair_up([said("t0", 0), said("t1", 1)], [said(f"s{i}", i) for i in range(4)])
    assert [(p.chosen, p.rejected) for p in pairs] == [("t0", "s0"), ("t1", "s1"), ("t0", "s2"), ("t1", "s3")]


def test_groups_share_the_prompt_and_the_chosen_text() -> None:
    pairs, _ = pair_up([said("t0", 0), said("t1", 1)], [said(f"s{i}", i) for i in range(4)])
    fmt = prompt_format()
    groups = pair_groups(pairs, fmt)
    assert [len(g.completions) for g in groups] == [3, 3]
    assert groups[0].completions[0] == tuple(fmt.encode_completion("t0"))
    assert groups[0].completions[1] == (7, 8, 2)  # the tokens that were sampled, not the text encoded again
    assert [g.completions for g in chosen_groups(pairs, fmt)] == [
        (tuple(fmt.encode_completion("t0")),),
        (tuple(fmt.encode_completion("t1")),),
    ]
