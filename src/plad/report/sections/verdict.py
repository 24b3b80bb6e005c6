"""The answer to "is my small model good now?", in one sentence that claims no more than the numbers do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plad.evaluate.run import SFT, STUDENT, TEACHER
from plad.evaluate.stats import SMALL
from plad.report.wording import interval, number, p_value

SIGNIFICANT = 0.05

BETTER, SAME, WORSE, UNKNOWN = "better", "same", "worse", "unknown"
HEADLINES = {
    BETTER: "Distillation made the student better",
    SAME: "No difference that this test can tell from chance",
    WORSE: "Distillation made the student worse",
    UNKNOWN: "Too little to tell",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to.

    Attributes:
        tone: better, same (not distinguishable), worse, or unknown (nothing was measured).
        headline: a few words.
        sentence: the figures behind the headline.
        notes: further sentences: the teacher, the other judges, small samples.
        measure: what `scores` are, in words.
        scores: (system, figure in %, interval) of the SFT student, the student and the teacher.
    """

    tone: str
    headline: str
    sentence: str
    notes: tuple[str, ...] = ()
    measure: str = ""
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
    rates = metrics["systems"].get(STUDENT, {}).get("win_rate", {})
    m = _Measured(metrics, next((judge for judge, rate in rates.items() if rate["n"]), None))
    own, change = m.score(STUDENT), m.change(SFT)
    if own.get("value") is None:
        sentence = "No judge and no metric could measure the distilled student on the test set."
        return Verdict(UNKNOWN, HEADLINES[UNKNOWN], sentence)
    has = m.has(own)
    if change.get("value") is None:
        basis = f"95 % interval {interval(own, scale=100)}; {m.basis(own)}"
        sentence = f"The distilled student {has} ({basis}). There is no SFT student to compare it with."
        return Verdict(UNKNOWN, HEADLINES[UNKNOWN], sentence, m.notes(), m.name, m.scores())
    tone = tone_of(change)
    sentence = (
        f"The distilled student {has}, {points_apart(change)} than before distillation "
        f"({_evidence(change)}; {m.basis(change)})."
    )
    return Verdict(tone, HEADLINES[tone], sentence, (*_doubts(tone, change), *m.notes()), m.name, m.scores())


def _doubts(tone: str, change: Mapping[str, Any]) -> list[str]:
    """What a reader has to hold against the headline: a test too small to see, a win bought with length."""
    power, equal = change.get("power") or {}, change.get("length_controlled") or {}
    if tone == SAME and power.get("detectable") is not None:
        points = number(power["detectable"], scale=100)
        needed = power.get("prompts_needed")
        more = f"; one of this size would take about {needed:,}" if needed else ""
        return [f"{change['n']:,} prompts can show a difference of about {points} points{more}."]
    if tone in (BETTER, WORSE) and equal.get("value") is not None and equal.get("low") is not None:
        band, points = interval(equal, scale=100, sign=True), number(equal["value"], scale=100, sign=True)
        if equal["low"] <= 0 <= equal["high"]:
            return [f"At equal length the difference is {points} points ({band}): it may come from length alone."]
    return []


def points_apart(change: Mapping[str, Any]) -> str:
    """`3.2 points more`: a difference of two shares."""
    points = number(abs(change["value"]), scale=100)
    return f"{points} points {'less' if change['value'] < 0 else 'more'}"


def _evidence(change: Mapping[str, Any]) -> str:
    band = interval(change, scale=100, sign=True)
    return ", ".join(x for x in (f"95 % interval {band}" if band else "", p_value(change.get("p"))) if x)


class _Measured:
    """The figures that decide: win rates by one judge, or ROUGE-L where `judge` is None."""

    def __init__(self, metrics: Mapping[str, Any], judge: str | None) -> None:
        self.systems, self.differences = metrics["systems"], metrics.get("differences", {})
        self.judge = judge
        self.name = "ROUGE-L against the references" if judge is None else "Win rate against the human target"

    def _pick(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        return found.get("rougeL", {}) if self.judge is None else found.get("win_rate", {}).get(self.judge, {})

    def score(self, system: str) -> Mapping[str, Any]:
        return self._pick(self.systems.get(system, {}))

    def change(self, other: str) -> Mapping[str, Any]:
        """The distilled student minus another system."""
        return self._pick(self.differences.get(f"{STUDENT} - {other}", {}))

    def has(self, score: Mapping[str, Any]) -> str:
        value = number(score["value"], scale=100)
        if self.judge is None:
            return f"reaches a ROUGE-L of {value}"
        return f"wins {value} % of the time against the human target"

    def basis(self, e: Mapping[str, Any]) -> str:
        judged = "no judge could compare with the human target" if self.judge is None else f"judge: {self.judge}"
        seeds = f"{e['seeds']} seeds, " if e.get("seeds") else ""
        return f"{seeds}{e['n']:,} test prompts, {judged}"

    def scores(self) -> tuple[tuple[str, str, str], ...]:
        found = {s: self.score(s) for s in (SFT, STUDENT, TEACHER)}
        return tuple(
            (s, number(e["value"], scale=100), interval(e, scale=100))
            for s, e in found.items()
            if e.get("value") is not None
        )

    def notes(self) -> tuple[str, ...]:
        """The teacher, the other judges, and a warning where the sample is small."""
        notes: list[str] = []
        teacher, gap = self.score(TEACHER), self.change(TEACHER)
        if teacher.get("value") is not None and gap.get("value") is not None:
            notes.append(f"The teacher {self.has(teacher)}{_stands(gap)} ({_evidence(gap)}).")
        says = {BETTER: "finds it better", WORSE: "finds it worse", SAME: "sees no clear difference"}
        for judge, change in self.differences.get(f"{STUDENT} - {SFT}", {}).get("win_rate", {}).items():
            if judge != self.judge and change.get("value") is not None:
                notes.append(
                    f"Judge {judge} {says.get(tone_of(change), 'has too little to tell')}: {points_apart(change)} "
                    f"({_evidence(change)}; {change['n']:,} prompts)."
                )
        n = self.score(STUDENT)["n"]
        if n < SMALL:
            notes.append(f"Only {n} prompts were compared: below {SMALL}, take every figure as a rough one.")
        return tuple(notes)


def _stands(gap: Mapping[str, Any]) -> str:
    points = number(abs(gap["value"]), scale=100)
    tone = tone_of(gap)
    if tone in (BETTER, WORSE):
        return f"; the student is {points} points {'ahead of' if tone == BETTER else 'behind'} it"
    return f"; the student can't be told apart from it, at {number(gap['value'], scale=100, sign=True)} points"
