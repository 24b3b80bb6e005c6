"""Pseudo-preference pairs (Eq. 3) and what becomes of them as groups."""

from plad.config import DropRules
from plad.pairs import build_pairs, chosen_groups, pair_groups
from plad.policy.prompt import PromptFormat
from plad.records import Example, Generation, Outcome, Pair
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


def test_every_teacher_answer_meets_every_student_answer() -> None:
    pairs, counts = pair_up([said("t0", 0), said("t1", 1)], [said(f"s{i}", i) for i in range(3)])
    assert [(p.id, p.chosen, p.rejected) for p in pairs[2:4]] == [("a#0-2", "t0", "s2"), ("a#1-0", "t1", "s0")]
    assert counts == {"candidates": 6, "pairs": 6}


def test_a_student_answer_that_the_teacher_gave_too_makes_no_pair() -> None:
    pairs, counts = pair_up([said("t0", 0), said("t1", 1)], [said("t1", 0), said("s", 1)])
    assert [(p.chosen, p.rejected) for p in pairs] == [("t0", "s"), ("t1", "s")]
    assert counts == {"candidates": 4, "pairs": 2, "dropped_identical": 2}


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
    assert [p.id for p in pairs] == ["a#0-4"]
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


def test_a_group_holds_a_prompt_and_each_of_its_texts_once() -> None:
    pairs, _ = pair_up([said("t0", 0), said("t1", 1)], [said(f"s{i}", i) for i in range(3)])
    fmt = prompt_format()
    (group,) = pair_groups(pairs, fmt)
    assert (group.id, group.chosen, len(group.completions)) == ("a", 2, 5)
    assert group.prompt == tuple(fmt.encode_prompt("x"))
    assert group.completions[:2] == (tuple(fmt.encode_completion("t0")), tuple(fmt.encode_completion("t1")))
    assert group.completions[2:] == ((7, 8, 2),) * 3  # the tokens that were sampled, not the text encoded again
    (alone,) = chosen_groups(pairs, fmt)
    assert alone.completions == group.completions[:2]


def made(id: str, chosen: str, rejected: str, **values: tuple[float, float]) -> Pair:
    return Pair(id, "x", chosen, rejected, "teacher", "student_sft", values=values)


def test_only_the_pairs_that_were_kept_are_preferences() -> None:
    """A text may be chosen in one pair and rejected in another; it stands in the group once."""
    pairs = [made("a#0-0", "t", "s0"), made("a#0-1", "s1", "t"), made("b#0-0", "t", "s0")]
    first, second = pair_groups(pairs, prompt_format())
    assert (first.chosen, len(first.completions)) == (2, 3)
    assert first.preferences == ((0, 2), (1, 0))
    assert second.preferences == ((0, 1),)


def test_values_follow_their_texts() -> None:
    """`half` was not measured of every pair, so the group has none."""
    pairs = [
        made("a#0-0", "t0", "s", quality=(3.0, 1.0), half=(0.0, 0.0)),
        made("a#1-0", "t1", "s", quality=(2.0, 1.0)),
    ]
    (group,) = pair_groups(pairs, prompt_format())
    assert group.values == {"quality": (3.0, 2.0, 1.0)}


def test_a_reference_is_context() -> None:
    fmt = prompt_format()
    (group,) = pair_groups([made("a#0-0", "t", "s")], fmt, {"a": "target"})
    assert group.completions[-1] == tuple(fmt.encode_completion("target"))
    assert (group.context, group.candidates, group.preferences) == (1, 2, ((0, 1),))
