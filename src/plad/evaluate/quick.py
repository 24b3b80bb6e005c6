"""The few figures by which a checkpoint is chosen while training."""

from collections.abc import Callable, Sequence
from typing import Any

from plad.evaluate.text import count_words
from plad.evaluate.winrate import Judged, win_rate
from plad.judges.base import Judge
from plad.judges.rouge import Rouge
from plad.records import Example, Generation, Outcome

RESAMPLES = 2000


def quick_figures(
    examples: Sequence[Example], judge: Judge | None, *, stemmer: bool = False, seed: int = 0
) -> Callable[[Sequence[Generation]], dict[str, Any]]:
    """A function from one answer an example to its figures; targets are scored once, here.

    Returns:
        Figures: win_rate, low, high and n of the judge (left out where it can judge no row), rougeL (F1 against the
        best reference), words (mean) and ended (share of answers that ended by themselves).
    """
    judged = Judged(judge, examples) if judge is not None else None
    rouge = Rouge(("rougeL",), stemmer=stemmer)

    def figures(answers: Sequence[Generation]) -> dict[str, Any]:
        texts = [g.text for g in answers]
        found: dict[str, Any] = {}
        if judged is not None:
            rate = win_rate(judged.against_target("student", texts), resamples=RESAMPLES, seed=seed)
            if rate.value is not None:
                found |= {"win_rate": rate.value, "low": rate.low, "high": rate.high, "n": rate.n}
        best = [rouge.best(t, e.references) for e, t in zip(examples, texts, strict=True)]
        scored = [b["rougeL"] for b in best if b is not None]
        if scored:
            found["rougeL"] = sum(scored) / len(scored)
        return found | {
            "words": sum(map(count_words, texts)) / len(texts),
            "ended": sum(g.outcome is not Outcome.TRUNCATED for g in answers) / len(answers),
        }

    return figures
