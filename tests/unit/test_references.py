"""Which text the margin loss compares with."""

from plad.pairs.groups import choose_references
from plad.records import Generation, Outcome, Pair


def pair(id: str, chosen: str, rejected: str) -> Pair:
    return Pair(id, "x", chosen, rejected, "teacher", "student_sft")


def said(*texts: str, outcome: Outcome = Outcome.OK) -> list[Generation]:
    return [Generation("a", i, text, (), outcome, 3) for i, text in enumerate(texts)]


def test_the_target_comes_first() -> None:
    pairs = [pair("a#0-0", "t0", "s")]
    assert choose_references(pairs, {"a": "target "}, {"a": said("t0", "t1")}) == ({"a": "target"}, pairs)


def test_a_target_that_the_teacher_gave_too_is_a_reference_all_the_same() -> None:
    pairs = [pair("a#0-0", "t0", "s")]
    assert choose_references(pairs, {"a": "t0"}, {}) == ({"a": "t0"}, pairs)


def test_without_a_target_it_is_an_answer_that_no_pair_chooses() -> None:
    pairs = [pair("a#1-0", "t1", "s")]
    for blank in (None, " "):
        assert choose_references(pairs, {"a": blank}, {"a": said("t0", "t1", "t2")}) == ({"a": "t0"}, pairs)


def test_an_answer_in_no_pair_comes_before_one_that_a_scorer_swapped() -> None:
    pairs = [pair("a#0-0", "s", "t0"), pair("a#1-1", "t1", "s2")]
    assert choose_references(pairs, {}, {"a": said("t0", "t1", "t2")}) == ({"a": "t2"}, pairs)
    assert choose_references(pairs[:1], {}, {"a": said("t0", "t1")}) == ({"a": "t1"}, pairs[:1])


def test_where_every_answer_is_chosen_the_last_one_is_the_reference_and_no_candidate() -> None:
    pairs = [pair("a#0-0", "t0", "s"), pair("a#1-0", "t1", "s"), pair("a#0-1", "t0", "t1")]
    assert choose_references(pairs, {}, {"a": said("t0", "t1")}) == ({"a": "t1"}, pairs[:1])


def test_a_prompt_with_one_answer_has_none() -> None:
    pairs = [pair("a#0-0", "t0", "s"), pair("b#0-0", "t0", "s")]
    answers = {"a": said("t0", "t0"), "b": [*said("t0"), *said("cut", outcome=Outcome.TRUNCATED)]}
    assert choose_references(pairs, {}, answers) == ({}, [])
    assert choose_references(pairs, {}, {}) == ({}, [])
