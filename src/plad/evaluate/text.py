"""Words, and shares of answers that ended badly or didn't change."""

from collections.abc import Sequence

from plad.judges.rouge import is_unspaced
from plad.records import Generation, Outcome

WORDS = "runs between white space that hold a letter or digit; in scripts written without spaces one character a word"


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


def share(flags: Sequence[bool]) -> float | None:
    """Share of flags that are set; None without any."""
    return sum(flags) / len(flags) if flags else None


def outcome_shares(generations: Sequence[Generation], sft: Sequence[Generation] | None) -> dict[str, float | None]:
    """How one system's answers ended, as in metrics.json.

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
