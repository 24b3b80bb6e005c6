"""ROUGE with the Unicode tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from plad.judges.rouge import METRICS, Rouge, UnicodeTokenizer

SCRIPTS = {
    "latin": "Déjà vu: la forêt s'étend jusqu'à l'Île",
    "chinese": "机器学习很有趣。",
    "japanese": "これは小さなモデルのテストです。",
    "russian": "Маленькая модель учится у большой.",
    "arabic": "النَّموذَجُ الصغير يتعلم من الكبير",
    "hindi": "छोटा मॉडल बड़े मॉडल से सीखता है",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_identical_texts_score_one_in_every_script(text: str) -> None:
    assert Rouge().best(text, [text]) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("机器 learns很", ["机", "器", "learns", "很"]),
        ("テスト、です", ["テ", "ス", "ト", "で", "す"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are marks, not letters, and stay in the word
        ("Cafe\u0301 CAFÉ", ["café", "café"]),  # composed or not, upper or lower case
        ("ＡＢＣ １２", ["abc", "12"]),  # full width
        ("می\u200cخواهم", ["میخواهم"]),  # a joiner stands inside a word
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("snake_case, it's 3.5", ["snake", "case", "it", "s", "3", "5"]),
        ("", []),
        ("... !?", []),
    ],
)
def test_words_of_each_script(text: str, tokens: list[str]) -> None:
    assert UnicodeTokenizer().tokenize(text) == tokens


def test_hand_worked_scores() -> None:
    """Candidate "a b c d", reference "a c b": 3 words shared, P 3/4, R 3/3, F 6/7.

    Bigrams ab bc cd against ac cb: none shared. Longest common subsequence "a b" (or "a c"): P 2/4, R 2/3, F 4/7.
    """
    scores = Rouge().best("a b c d", ["a c b"])
    assert scores == pytest.approx({"rouge1": 6 / 7, "rouge2": 0.0, "rougeL": 4 / 7})


def test_best_reference_counts_for_each_metric_on_its_own() -> None:
    """ "b a x" shares more words with "a b" (F 4/5), but its pair and order with "a x y z" (ROUGE-2 F 2/5)."""
    scores = Rouge().best("b a x", ["a b", "a x y z"])
    assert scores == pytest.approx({"rouge1": 4 / 5, "rouge2": 2 / 5, "rougeL": 4 / 7})


@pytest.mark.parametrize(("text", "reference"), [("", "a b"), ("a b", ""), ("", ""), ("...", "..."), ("!", "a")])
def test_texts_without_words_score_zero(text: str, reference: str) -> None:
    assert Rouge().best(text, [reference]) == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}


def test_without_references_there_is_no_score() -> None:
    assert Rouge().best("a", []) is None


def test_stemmer_joins_english_forms_and_leaves_other_scripts_alone() -> None:
    assert UnicodeTokenizer(stemmer=True).tokenize("models modelled модели") == ["model", "model", "модели"]
    assert Rouge(stemmer=True).best("models learning", ["model learns"]) == pytest.approx(dict.fromkeys(METRICS, 1.0))


@given(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127)), st.booleans())
def test_equals_rouge_score_on_ascii(text: str, reference: str, stemmer: bool) -> None:
    theirs = RougeScorer(list(METRICS), use_stemmer=stemmer).score(reference, text)
    ours = Rouge(stemmer=stemmer).best(text, [reference])
    assert ours == {m: float(theirs[m].fmeasure) for m in METRICS}


@given(st.text())
def test_any_text_can_be_tokenized_and_no_token_is_empty(text: str) -> None:
    assert all(UnicodeTokenizer().tokenize(text))
