"""What answers are made of: words, variety, repetition, what is copied from the prompt, and how they ended."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from plad.evaluate.lengths import length_edges
from plad.evaluate.metrics import Estimate, Histogram, Length
from plad.evaluate.stats import Bootstrap, estimate
from plad.judges.rouge import UnicodeTokenizer, is_unspaced
from plad.records import Generation, Outcome, Prompt

COPIED = 4  # words in a row that make a copy
REPEATED = 4
NEW = 2
QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
WORDS = "runs between white space that hold a letter or digit; in scripts written without spaces one character a word"
METHOD = {
    "distinct": "distinct-n: different n-grams of all answers together / their n-grams; longer texts have lower values",
    "repetition": f"mean share of an answer's {REPEATED}-grams that stood in it before; 0 in shorter answers",
    "copied": f"mean share of an answer's words in runs of {COPIED} or more words that stand in the prompt too",
    "novel": f"mean share of an answer's {NEW}-grams that don't stand in the prompt; answers of one word are left out",
    "ended": "share of answers that ended by themselves: neither cut off nor left out",
    "length": "quantiles and histogram of words; bins above an edge, up to and with the next, the same for all systems",
}

NGram = tuple[str, ...]


def count_words(text: str) -> int:
    """Number of words; see `WORDS` for the rule."""
    words = 0
    for run in text.split():
        spaced = False
        for char in run:
            if char.isalnum():
                if is_unspaced(char):
                    words += 1
                else:
                    spaced = True
        words += spaced
    return words


def ngrams(words: Sequence[str], n: int) -> list[NGram]:
    """The runs of n words, in order."""
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(answers: Sequence[Sequence[str]], n: int) -> float | None:
    """Different n-grams of all answers over all n-grams; None where there are none.

    Source: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016.
    """
    grams = [g for words in answers for g in ngrams(words, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(words: Sequence[str], n: int = REPEATED) -> float:
    """Share of a text's n-grams that stood in it before.

    Source: Welleck et al., "Neural Text Generation with Unlikelihood Training", 2020 (seq-rep-n).
    """
    grams = ngrams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied(words: Sequence[str], prompt: Sequence[str], n: int = COPIED) -> float:
    """Share of a text's words that stand in a run of at least n words of the prompt.

    Source: Grusky et al., "Newsroom", 2018 (extractive fragment coverage, of fragments of n words or more).
    """
    known = set(ngrams(prompt, n))
    inside = {i + k for i, gram in enumerate(ngrams(words, n)) if gram in known for k in range(n)}
    return len(inside) / len(words) if words else 0.0


def novel(words: Sequence[str], prompt: Sequence[str], n: int = NEW) -> float | None:
    """Share of a text's n-grams that don't stand in the prompt; None where it has none.

    Source: See et al., "Get To The Point", 2017, section 7.2.
    """
    known, grams = set(ngrams(prompt, n)), ngrams(words, n)
    return sum(g not in known for g in grams) / len(grams) if grams else None


class TextFigures(TypedDict):
    """The fields of `SystemFigures` that tell what texts are made of."""

    distinct: dict[str, float | None]
    repetition: Estimate
    copied: Estimate
    novel: Estimate
    length: Length


class TextStatistics:
    """Statistics of texts of one test set.

    Args:
        prompts: id -> prompt.
        texts: all texts that will be compared; they decide the bins of the histograms.
    """

    def __init__(self, prompts: Mapping[str, Prompt], texts: Iterable[str], bootstrap: Bootstrap) -> None:
        self._tokenize = UnicodeTokenizer().tokenize
        self._prompts = {i: self._tokenize(_text(p)) for i, p in prompts.items()}
        self._edges = length_edges([count_words(t) for t in texts])
        self._bootstrap = bootstrap

    def of(self, texts: Mapping[str, str]) -> TextFigures:
        """The statistics of one system's texts, id -> text."""
        words = {i: self._tokenize(t) for i, t in texts.items()}
        new = [novel(w, self._prompts[i]) for i, w in words.items()]
        return {
            "distinct": {str(n): distinct(list(words.values()), n) for n in (1, 2, 3)},
            "repetition": self._mean([repetition(w) for w in words.values()]),
            "copied": self._mean([copied(w, self._prompts[i]) for i, w in words.items()]),
            "novel": self._mean([x for x in new if x is not None]),
            "length": self._length([count_words(t) for t in texts.values()]),
        }

    def _mean(self, values: Sequence[float]) -> Estimate:
        return estimate(np.array(values, dtype=np.float64), self._bootstrap)

    def _length(self, words: Sequence[int]) -> Length:
        bins = np.bincount(np.searchsorted(self._edges, words, side="left"), minlength=len(self._edges) + 1)
        points = np.quantile(words, list(QUANTILES.values())) if words else [None] * len(QUANTILES)
        return Length(
            quantiles={k: None if q is None else float(q) for k, q in zip(QUANTILES, points, strict=True)},
            histogram=Histogram(edges=tuple(self._edges), counts=tuple(bins.tolist())),
        )


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)


def share(flags: Sequence[bool]) -> float | None:
    """Share of flags that are set; None without any."""
    return sum(flags) / len(flags) if flags else None


def outcome_shares(generations: Sequence[Generation], sft: Sequence[Generation] | None) -> dict[str, float | None]:
    """How one system's answers ended: the shares of `SystemFigures` by name.

    Args:
        generations: N answers.
        sft: the fine-tuned student's N answers to the same prompts, to see how many stayed the same; or None.
    """
    shares = {
        "truncated": share([g.outcome is Outcome.TRUNCATED for g in generations]),
        "too_long": share([g.outcome is Outcome.TOO_LONG for g in generations]),
        "ended": share([g.outcome in (Outcome.OK, Outcome.EMPTY) for g in generations]),
        "empty": share([not g.text.strip() for g in generations]),
    }
    if sft is not None:
        shares["same_as_sft"] = share([a.text == b.text for a, b in zip(generations, sft, strict=True)])
    return shares
