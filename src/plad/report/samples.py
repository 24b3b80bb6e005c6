"""Answers side by side: which test prompts a reader sees, and how long texts are folded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plad.evaluate.run import SFT, STUDENT, TARGET
from plad.records import Example, Outcome, Prompt
from plad.report.facts import Facts
from plad.report.verdict import BETTER, SAME, WORSE
from plad.report.wording import harmless, number, order_systems, system_name

EXTREMES, SPACED = 3, 6  # of each kind
FOLD, FOLD_PROMPT, CUT = 600, 280, 20_000  # characters shown at once, and at all
NAME = 80  # characters of an id
RULE = (
    f"up to {EXTREMES} prompts where distillation raised the judge's score most, {EXTREMES} where it lowered it most, "
    f"and {SPACED} spaced evenly over the test set"
)


@dataclass(frozen=True, slots=True)
class Text:
    """A text, harmless and folded.

    Attributes:
        head: what is shown at once.
        rest: what is shown on request.
        note: what was cut for good.
    """

    head: str
    rest: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One system's answer on a card."""

    name: str
    text: Text
    facts: tuple[str, ...]
    mine: bool  # of the distilled student


@dataclass(frozen=True, slots=True)
class Sample:
    """One test prompt with all answers."""

    id: str
    why: str
    tone: str
    turns: tuple[tuple[str, Text], ...]  # role, text
    answers: tuple[Answer, ...]


def fold(text: str, where: str, limit: int = FOLD) -> Text:
    """Make a text harmless, show its beginning, fold the rest, cut what no reader reads.

    Args:
        where: the file that holds all of it.
        limit: characters shown at once; a text a third longer is shown whole.
    """
    left = len(text) - CUT
    shown = harmless(text[:CUT])
    note = f"{left:,} more characters are in {where}." if left > 0 else ""
    if len(shown) <= limit * 4 // 3 and not note:
        return Text(shown)
    space = shown.rfind(" ", limit * 3 // 4, limit)  # between words, where there are any
    at = space if space > 0 else limit
    return Text(shown[:at], shown[at:].lstrip(" "), note)


def samples(facts: Facts) -> list[Sample]:
    """The cards of a report, chosen by `RULE`; none where prompts or answers are missing."""
    ids = [i for i in facts.test if i in facts.answers]
    scores = _scores(facts)
    gains = {i: s[STUDENT] - s[SFT] for i, s in scores.items() if STUDENT in s and SFT in s}
    chosen: dict[str, tuple[str, str]] = {}
    moved = sorted((i for i in ids if gains.get(i)), key=lambda i: (-gains[i], i))
    for i in [i for i in moved if gains[i] > 0][:EXTREMES]:
        chosen[i] = (f"raised by {number(gains[i], digits=2)}", BETTER)
    for i in [i for i in moved[::-1] if gains[i] < 0][:EXTREMES]:
        chosen[i] = (f"lowered by {number(-gains[i], digits=2)}", WORSE)
    rest = [i for i in ids if i not in chosen]
    count = min(SPACED, len(rest))
    for k in range(count):
        chosen[rest[k * len(rest) // count]] = ("evenly spaced", SAME)
    return [_sample(facts.test[i], facts.answers[i], scores.get(i, {}), *why) for i, why in chosen.items()]


def _scores(facts: Facts) -> dict[str, dict[str, float]]:
    """The first judge's scores by example and system."""
    against = [j for j in facts.judgements if j.opponent == TARGET]
    first = against[0].judge if against else None
    scores: dict[str, dict[str, float]] = {}
    for j in against:
        if j.judge == first:
            scores.setdefault(j.example_id, {})[j.system] = j.score
            scores[j.example_id][TARGET] = j.opponent_score
    return scores


def _turns(prompt: Prompt) -> Sequence[tuple[str, str]]:
    return [("Prompt", prompt)] if isinstance(prompt, str) else [(m["role"], m["content"]) for m in prompt]


def _sample(example: Example, given: Mapping[str, Any], scores: Mapping[str, float], why: str, tone: str) -> Sample:
    answers: list[Answer] = []
    for system in order_systems({TARGET: None, **given}):
        if system == TARGET:
            if example.target is None:
                continue
            text, notes = fold(example.target, "data/test.jsonl"), []
        else:
            row = given[system]
            text = fold(row["text"], "eval/answers.jsonl")
            notes = [f"{row['tokens']:,} tokens"]
            notes += _OUTCOMES.get(row["outcome"], [])
        if system in scores:
            notes.append(f"score {number(scores[system], digits=2)}")
        answers.append(Answer(system_name(system), text, tuple(notes), system == STUDENT))
    turns = tuple((role, fold(text, "data/test.jsonl", FOLD_PROMPT)) for role, text in _turns(example.prompt))
    return Sample(_short(example.id), why, tone, turns, tuple(answers))


def _short(name: str) -> str:
    return harmless(name if len(name) <= NAME else f"{name[:NAME]}…")


_OUTCOMES: dict[str, list[str]] = {
    Outcome.OK: [],
    Outcome.TRUNCATED: ["cut off"],
    Outcome.EMPTY: ["empty"],
    Outcome.TOO_LONG: ["prompt too long, not sent"],
    Outcome.REFUSED: ["refused"],
    Outcome.FILTERED: ["held back by a content filter"],
    Outcome.BAD_REQUEST: ["prompt not accepted"],
    Outcome.FAILED: ["no answer came"],
}
