"""ROUGE F1 for every script: the rouge-score package with a Unicode tokenizer.

Rules where the metric is silent:

* a text without a single word scores 0.0, also against another text without words;
* ROUGE-2 of a text of one word is 0.0, because it has no pair of words;
* with several references the best one counts, for each metric on its own.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

METRICS = ("rouge1", "rouge2", "rougeL")
TOKENIZER = (
    "Unicode words: NFKC, case folded; runs of letters, digits and combining marks; scripts written without spaces "
    "(Han, kana, Thai, Lao, Khmer, Burmese) one character a token; on ASCII text equal to rouge-score's own"
)

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x3040, 0x30FF),  # hiragana, katakana
    (0x31F0, 0x31FF),  # small katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x323AF),  # Han, further extensions
)


@lru_cache(maxsize=65_536)
def is_unspaced(char: str) -> bool:
    """Whether a character belongs to a script that puts no spaces between words."""
    return any(low <= ord(char) <= high for low, high in _UNSPACED)


@lru_cache(maxsize=65_536)
def _kind(char: str) -> str:
    """`word`, `single` (a token of its own), `mark` (joins what precedes), `drop` (invisible) or `space`."""
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if category == "Cf":
        return "drop"  # joiners, direction marks and soft hyphens stand inside words
    if category[0] in "LN":
        return "single" if is_unspaced(char) else "word"
    return "space"


def _tokens(text: str) -> Iterator[str]:
    word, single = "", False  # `single`: the word is one character of an unspaced script, open for marks only
    for char in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        kind = _kind(char)
        if kind == "drop":
            continue
        if (kind == "word" and not single) or (kind == "mark" and word):
            word += char
            continue
        if word:
            yield word
        word, single = (char, kind == "single") if kind in ("word", "single") else ("", False)
    if word:
        yield word


class UnicodeTokenizer(Tokenizer):
    """Splits any script into words; see `TOKENIZER` for the rule.

    Args:
        stemmer: Porter-stem English words of more than three letters, as rouge-score does.
    """

    def __init__(self, *, stemmer: bool = False) -> None:
        self._stemmer = PorterStemmer() if stemmer else None

    def tokenize(self, text: str) -> list[str]:
        """The words of `text`."""
        stemmer: Any = self._stemmer  # nltk has no types
        if stemmer is None:
            return list(_tokens(text))
        return [stemmer.stem(t) if len(t) > 3 and t.isascii() else t for t in _tokens(text)]


class Rouge:
    """Scores texts against references.

    Args:
        metrics: any of `METRICS`.
        stemmer: see `UnicodeTokenizer`.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.
    """

    def __init__(self, metrics: Sequence[str] = METRICS, *, stemmer: bool = False) -> None:
        self.metrics = tuple(metrics)
        self._scorer = RougeScorer(list(metrics), tokenizer=UnicodeTokenizer(stemmer=stemmer))

    def best(self, text: str, references: Sequence[str]) -> dict[str, float] | None:
        """F1 of each metric, 0 to 1, against the reference that is best for it; None without references."""
        if not references:
            return None
        scores = [self._f1(reference, text) for reference in references]
        return {m: max(s[m] for s in scores) for m in self.metrics}

    def _f1(self, reference: str, text: str) -> dict[str, float]:
        scorer: Any = self._scorer  # rouge-score has no types
        scores = scorer.score(reference, text)
        return {m: float(scores[m].fmeasure) for m in self.metrics}
