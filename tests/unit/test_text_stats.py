"""Words, shares, and what answers are made of."""

import json

import pytest

from plad.evaluate.metrics import Histogram, SystemFigures
from plad.evaluate.stats import Bootstrap
from plad.evaluate.texts import TextStatistics, copied, count_words, distinct, ngrams, novel, outcome_shares, repetition
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
    found = outcome_shares(ours, sft)
    assert (found["truncated"], found["empty"], found["too_long"], found["same_as_sft"]) == (0.25, 0.5, 0.25, 0.5)
    assert found["ended"] == 0.5


def test_no_answers_give_none_and_never_nan() -> None:
    assert set(outcome_shares([], []).values()) == {None}


def split(text: str) -> list[str]:
    return text.split()


def test_ngram_statistics_by_hand() -> None:
    words = split("a b a b a")
    assert ngrams(words, 2) == [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]
    assert ngrams(words, 6) == []
    assert repetition(words, 2) == 0.5  # two of four bigrams stood there before
    assert repetition(words) == 0.0  # abab, baba
    assert repetition(split("x y z w x y z w")) == pytest.approx(1 / 5)
    assert repetition(["a"]) == 0.0
    assert distinct([["a", "b"], ["a", "c"]], 1) == 3 / 4
    assert distinct([["a", "b"], ["a", "b"]], 2) == 1 / 2
    assert distinct([["a"], []], 2) is None


def test_copies_and_novelty_by_hand() -> None:
    prompt = split("the sea is blue and wide today")
    assert copied(split("so the sea is blue but green and wide today"), prompt) == 4 / 10  # "and wide today" is short
    assert copied(split("the sea is blue and"), prompt) == 1.0  # two overlapping runs
    assert copied(split("sea the blue is"), prompt) == 0.0
    assert copied([], prompt) == 0.0
    assert novel(split("the sea was blue"), prompt) == 2 / 3
    assert novel(["sea"], prompt) is None


def test_statistics_of_a_system() -> None:
    """Words 2, 3, 12 and 0; edges at 5 and 10."""
    prompts = {"a": "one two three four", "b": ({"role": "user", "content": "Red, Green"},), "c": "x", "d": "y"}
    texts = {"a": "One two", "b": "red green blue", "c": "w " * 12, "d": ""}
    found = TextStatistics(prompts, [*texts.values(), "w " * 15], Bootstrap(50)).of(texts)  # type: ignore[arg-type]
    assert found["novel"].value == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert found["novel"].n == 3  # d has no bigram
    assert found["copied"].value == 0.0
    assert found["repetition"].value == pytest.approx(8 / 9 / 4)  # nine 4-grams, all the same
    assert found["distinct"]["1"] == pytest.approx(6 / 17)
    assert found["length"].quantiles == {
        "min": 0.0,
        "p5": pytest.approx(0.3),
        "p25": 1.5,
        "p50": 2.5,
        "p75": 5.25,
        "p95": pytest.approx(10.65),
        "max": 12.0,
    }
    assert found["length"].histogram == Histogram(edges=(5, 10), counts=(3, 0, 1))


def test_statistics_of_nothing() -> None:
    found = TextStatistics({}, [], Bootstrap(50)).of({})
    assert json.dumps(SystemFigures(**found).to_json(), allow_nan=False)
    assert found["length"].histogram == Histogram(edges=(), counts=(0,))
    assert found["length"].quantiles["p50"] is None
