"""The answer to "is my small model good now?", in one sentence that claims no more than the numbers do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plad.evaluate.run import SFT, STUDENT, TEACHER
from plad.evaluate.stats import SMALL
from plad.report.wording import interval, number, p_value

SIGNIFICANT = 0.05

BETTER, SAME, WORSE, UNKNOWN = "better", "same", "worse", "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to.

    Attributes:
        tone: better, same (not distinguishable), worse, or unknown (nothing was measured).
        headline: a few words.
        sentence: the figures behind the headline.
        notes: further sentences: the teacher, the other judges, small samples.
        scores: (system, win rate by the judge that decides, interval) of the SFT student, the student, the teacher.
    """

    tone: str
    headline: str
    sentence: str
    notes: tuple[str, ...] = ()
    scores: tuple[tuple[str, str, str], ...] = ()


def tone_of(difference: Mapping[str, Any]) -> str:
    """better or worse only where the interval excludes 0 and p is below 0.05."""
    value, low, high, p = (difference.get(k) for k in ("value", "low", "high", "p"))
    if value is None or low is None or high is None or p is None:
        return UNKNOWN
    if p >= SIGNIFICANT or low <= 0 <= high:
        return SAME
    return BETTER if value > 0 else WORSE


def verdict(metrics: Mapping[str, Any] | None) -> Verdict:
    """The verdict of eval/metrics.json.

    The first judge that could judge the student decides; without one, ROUGE-L does.
    """
    if metrics is None:
        return Verdict(UNKNOWN, "Not evaluated yet", "The evaluation has not run, so there is no verdict.")
    systems, differences = metrics["systems"], metrics.get("differences", {})
    gain = differences.get(f"{STUDENT} - {SFT}", {})
    rates = {j: r for j, r in systems.get(STUDENT, {}).get("win_rate", {}).items() if r["n"]}
    if not rates:
        return _by_rouge(systems, gain)
    judge, rate = next(iter(rates.items()))
    won = f"the distilled student wins {number(rate['value'], scale=100)} % of the time against the human target"
    change = gain.get("win_rate", {}).get(judge)
    if change is None or change.get("value") is None:
        sentence = f"{won[0].upper()}{won[1:]} (95 % interval {interval(rate, scale=100)}; {_basis(rate, judge)})."
        return Verdict(UNKNOWN, "No fine-tuned student to compare with", sentence, _notes(metrics, judge))
    tone = tone_of(change)
    facts = f"{won}, {_change(change)} than before distillation ({_evidence(change, 100)}; {_basis(change, judge)})"
    sentence = f"{facts[0].upper()}{facts[1:]}."
    return Verdict(tone, HEADLINES[tone], sentence, _notes(metrics, judge), _scores(systems, judge))


def _scores(systems: Mapping[str, Any], judge: str) -> tuple[tuple[str, str, str], ...]:
    rates = {s: systems[s]["win_rate"].get(judge, {}) for s in (SFT, STUDENT, TEACHER) if s in systems}
    return tuple(
        (s, number(r["value"], scale=100), interval(r, scale=100))
        for s, r in rates.items()
        if r.get("value") is not None
    )


HEADLINES = {
    BETTER: "Distillation made the student better",
    SAME: "No difference that this test can tell from chance",
    WORSE: "Distillation made the student worse",
    UNKNOWN: "Too little to tell",
}


def _change(change: Mapping[str, Any]) -> str:
    points = number(abs(change["value"]), scale=100)
    return f"{points} points {'less' if change['value'] < 0 else 'more'}"


def _evidence(e: Mapping[str, Any], scale: float) -> str:
    band = interval(e, scale=scale, sign=True)
    return ", ".join(x for x in (f"95 % interval {band}" if band else "", p_value(e.get("p"))) if x)


def _basis(e: Mapping[str, Any], judge: str) -> str:
    return f"{e['n']:,} test prompts, judge: {judge}"


def _by_rouge(systems: Mapping[str, Any], gain: Mapping[str, Any]) -> Verdict:
    change, score = gain.get("rougeL", {}), systems.get(STUDENT, {}).get("rougeL", {})
    if change.get("value") is None or score.get("value") is None:
        return Verdict(UNKNOWN, "Too little to tell", "No judge and no metric could compare the distilled student.")
    tone = tone_of(change)
    sentence = (
        f"The distilled student's ROUGE-L is {number(score['value'], scale=100)}, {_change(change)} than before "
        f"distillation ({_evidence(change, 100)}; {change['n']:,} test prompts). No judge could compare it with the "
        "human target."
    )
    return Verdict(tone, HEADLINES[tone], sentence)


def _notes(metrics: Mapping[str, Any], first: str) -> tuple[str, ...]:
    notes: list[str] = []
    systems, differences = metrics["systems"], metrics.get("differences", {})
    rate = systems.get(TEACHER, {}).get("win_rate", {}).get(first, {})
    to_teacher = differences.get(f"{STUDENT} - {TEACHER}", {}).get("win_rate", {}).get(first, {})
    if rate.get("value") is not None and to_teacher.get("value") is not None:
        seen = {
            BETTER: "and the student is ahead of it by",
            WORSE: "and the student is behind it by",
            SAME: "from which the student can't be told apart: it differs by",
            UNKNOWN: "and the student differs by",
        }[tone_of(to_teacher)]
        notes.append(
            f"The teacher wins {number(rate['value'], scale=100)} %, {seen} "
            f"{number(abs(to_teacher['value']), scale=100)} points ({_evidence(to_teacher, 100)})."
        )
    for judge, change in differences.get(f"{STUDENT} - {SFT}", {}).get("win_rate", {}).items():
        if judge != first and change.get("value") is not None:
            says = {BETTER: "finds it better", WORSE: "finds it worse", SAME: "sees no clear difference"}
            notes.append(
                f"Judge {judge} {says.get(tone_of(change), 'has too little to tell')}: {_change(change)} "
                f"({_evidence(change, 100)}; {change['n']:,} prompts)."
            )
    small = systems[STUDENT]["win_rate"][first]["n"]
    if small < SMALL:
        notes.append(f"Only {small} prompts were judged: below {SMALL}, take every figure as a rough one.")
    return tuple(notes)
