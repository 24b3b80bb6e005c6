"""Words and shares."""

import pytest

from plad.evaluate.text import count_words, text_statistics
from plad.records import Generation, Outcome


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One two, three.", 3),
        ("it's state-of-the-art", 2),
        ("a - b", 2),
        ("机器学习很有趣。", 7),
        ("用 Python 写", 3),
        ("Привет мир", 2),
        ("", 0),
        (" ... ", 0),
    ],
)
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words


def _generation(i: int, text: str, outcome: Outcome = Outcome.OK) -> Generation:
    return Generation(f"e{i}", 0, text, (1, 2), outcome, 3)


def test_shares_are_of_all_answers() -> None:
    ours = [
        _generation(0, "a b"),
        _generation(1, "a b c d", Outcome.TRUNCATED),
        _generation(2, "", Outcome.EMPTY),
        _generation(3, "", Outcome.TOO_LONG),
    ]
    sft = [_generation(0, "a b"), _generation(1, "x"), _generation(2, "y"), _generation(3, "")]
    found = text_statistics(ours, sft, resamples=100, seed=0)
    assert (found["truncated"], found["empty"], found["too_long"], found["same_as_sft"]) == (0.25, 0.5, 0.25, 0.5)
    assert found["words"]["value"] == 1.5
    assert found["words"]["n"] == 4


def test_no_answers_give_none_and_never_nan() -> None:
    found = text_statistics([], [], resamples=100, seed=0)
    assert found["truncated"] is None
    assert found["words"] == {"value": None, "low": None, "high": None, "n": 0}
