"""How often the source of a pseudo-preference pair is wrong."""

from plad.evaluate.agreement import preference_counts
from plad.judges.base import compare_scores
from plad.pairs.build import ScoredPair


def noise(*pairs: tuple[str, int, float | None, float | None]) -> dict:
    """Counts of pairs given as (prompt, words of the student's answer, teacher's score, student's score)."""
    scored = []
    for prompt, words, teacher, student in pairs:
        (comparison,) = compare_scores(["ours"], ["theirs"], [teacher], [student])
        scored.append(ScoredPair(prompt, "word " * words, comparison))
    return preference_counts(scored)


def test_orders_are_counted_and_ties_of_right_and_wrong_told_apart() -> None:
    found = noise(("a", 1, 1, 0), ("b", 1, 0, 1), ("c", 1, 1, 1), ("d", 1, 0, 0), ("e", 1, 0, 0), ("f", 1, None, 1))
    assert found["scored"] == {
        "pairs": 6,
        "teacher_better": 1,
        "student_better": 1,
        "ties": 3,
        "unjudged": 1,
        "both_right": 1,
        "both_wrong": 2,
    }
    assert (found["wrong"]["wrong"], found["wrong"]["pairs"], found["wrong"]["value"]) == (1, 5, 0.2)


def test_other_scores_have_plain_ties() -> None:
    assert "both_right" not in noise(("a", 1, 0.5, 0.5))["scored"]


def test_bins_of_length_hold_every_judged_pair_and_show_empty_ones() -> None:
    found = noise(("a", 0, 1, 0), ("b", 10, 0, 1), ("c", 11, 1, 0), ("d", 31, 0, 1), ("e", 40, 0, 1))["wrong"]
    assert {name: (b["wrong"], b["pairs"], b["value"]) for name, b in found["by_words"].items()} == {
        "0-10": (1, 2, 0.5),
        "11-20": (0, 1, 0.0),
        "21-30": (0, 0, None),
        "31-40": (2, 2, 1.0),
    }
    assert list(noise(("a", 500, 1, 0))["wrong"]["by_words"]) == ["0-500"]


def test_prompts_weigh_the_same_however_many_pairs_they_have() -> None:
    """One of three pairs of a is wrong, and the only one of b: (1/3 + 1) / 2."""
    found = noise(("a", 1, 0, 1), ("a", 1, 1, 0), ("a", 1, 1, 0), ("b", 1, 0, 1))["wrong"]
    assert found["value"] == (1 / 3 + 1) / 2
    assert (found["n"], found["pairs"]) == (2, 4)
    assert found["low"] <= found["value"] <= found["high"]


def test_nothing_judged_is_nothing_said() -> None:
    found = noise(("a", 3, None, None))
    assert found["wrong"] == {"value": None, "low": None, "high": None, "n": 0, "pairs": 0, "wrong": 0, "by_words": {}}
    assert found["scored"]["unjudged"] == 1
