"""The answer to "is my small model good now?", in one sentence that claims no more than the numbers do."""

from plad.evaluate.deciding import Decision, decision, rouge_of
from plad.evaluate.metrics import Difference, Estimate, HeadToHead, Metrics, SystemDifference
from plad.evaluate.stats import SMALL
from plad.records import STUDENT, STUDENT_SFT, TEACHER
from plad.report.parts.blocks import BETTER, SAME, UNKNOWN, WORSE, Score, VerdictBox
from plad.report.parts.estimates import evidence, points_apart, tone_of
from plad.report.parts.formatting import interval, number, p_value, system_name

HEADLINES = {
    BETTER: "Distillation made the student better",
    SAME: "No difference that this test can tell from chance",
    WORSE: "Distillation made the student worse",
    UNKNOWN: "Too little to tell",
}
_NEARER = {  # where only likeness to a text was seen
    BETTER: "Distillation brought the student nearer to the target",
    WORSE: "Distillation took the student further from the target",
}


def verdict(metrics: Metrics | None) -> VerdictBox:
    """The verdict of an evaluation; what decides is the same for all that choose (`plad.judges.measure`)."""
    if metrics is None:
        return VerdictBox(UNKNOWN, "Not evaluated yet", "The evaluation has not run, so there is no verdict.")
    m = _Words(decision(metrics))
    duel, change = m.decision.duel(STUDENT_SFT), m.decision.change(STUDENT_SFT)
    student = duel or m.decision.score(STUDENT)
    if student is None or student.value is None:
        sentence = "No judge and no metric could measure the distilled student on the test set."
        return VerdictBox(UNKNOWN, HEADLINES[UNKNOWN], sentence)
    if change is None or change.value is None:
        basis = f"95 % interval {interval(student, scale=100)}; {m.basis(student)}"
        sentence = (
            f"The distilled student {m.reaches(student.value)} ({basis}). There is no SFT student to compare it with."
        )
        return VerdictBox(UNKNOWN, HEADLINES[UNKNOWN], sentence, m.notes(student.n), m.name, m.scores())
    tone = tone_of(change)
    if duel is not None:
        sentence = f"The distilled student {beats(m.decision, duel, STUDENT_SFT)}; {m.basis(change)})."
    else:
        sentence = (
            f"The distilled student {m.reaches(student.value)}, {points_apart(change.value)} than before distillation "
            f"({evidence(change)}; {m.basis(change)})."
        )
    notes = (*_doubts(tone, change), *m.notes(student.n))
    headlines = HEADLINES | (_NEARER if m.decision.measure.likeness else {})
    return VerdictBox(tone, headlines[tone], sentence, notes, m.name, m.scores())


def _doubts(tone: str, change: Difference) -> list[str]:
    """What a reader has to hold against the headline: a test too small to see, a win bought with length."""
    power, equal = change.power, change.length_controlled
    if tone == SAME and power.detectable is not None:
        points, needed = number(power.detectable, scale=100), power.prompts_needed
        more = f"; one of this size would take about {needed:,}" if needed else ""
        return [f"{change.n:,} prompts can show a difference of about {points} points{more}."]
    if tone not in (BETTER, WORSE) or equal is None or equal.value is None or equal.low is None or equal.high is None:
        return []
    if not equal.low <= 0 <= equal.high:
        return []
    band, points = interval(equal, scale=100, sign=True), number(equal.value, scale=100, sign=True)
    return [f"At equal length the difference is {points} points ({band}): it may come from length alone."]


def beats(decides: Decision, duel: HeadToHead, other: str) -> str:
    """`is better than the SFT student 58.1 % of the time, ties half (95 % interval ...`: the bracket stays open."""
    kind = "nearer to the target" if decides.measure.likeness else "better"
    # the verdict itself is of one comparison alone
    p = duel.p if duel.p_holm is None or other == STUDENT_SFT else duel.p_holm
    known = ", ".join(x for x in (f"95 % interval {interval(duel, scale=100)}", p_value(p)) if x)
    return f"is {kind} than {_mid(other)} {number(duel.value, scale=100)} % of the time, ties half ({known}"


class _Words:
    """The figures that decide, in words."""

    def __init__(self, decides: Decision) -> None:
        self.decision, self.metrics, self.judge = decides, decides.metrics, decides.judge
        rated = decides.measure.name == "win_rate"
        self.name = "Win rate against the human target" if rated else rouge_of(self.metrics).words

    def reaches(self, value: float) -> str:
        if self.decision.measure.name != "win_rate":
            return f"reaches a ROUGE-L of {number(value, scale=100)}"
        return f"wins {number(value, scale=100)} % of the time against the human target"

    def basis(self, e: Estimate) -> str:
        judged = "no judge could compare with the human target"
        if self.decision.measure.name == "win_rate":
            judged = f"judge: {self.judge}"
        elif self.judge is not None:
            judged = f"by {self.decision.measure.words}: {judged}"
        seeds = f"{e.seeds} seeds, " if e.seeds else ""
        return f"{seeds}{e.n:,} test prompts, {judged}"

    def scores(self) -> tuple[Score, ...]:
        found = {s: self.decision.score(s) for s in (STUDENT_SFT, STUDENT, TEACHER)}
        return tuple(
            Score(system_name(s), number(e.value, scale=100), interval(e, scale=100), s == STUDENT)
            for s, e in found.items()
            if e is not None and e.value is not None
        )

    def notes(self, n: int) -> tuple[str, ...]:
        """The teacher, the other judges, and a warning where the sample of `n` is small."""
        notes: list[str] = []
        teacher, gap = self.decision.score(TEACHER), self.decision.change(TEACHER)
        duel = self.decision.duel(TEACHER)
        if duel is not None:
            notes.append(f"It {beats(self.decision, duel, TEACHER)}).")
        elif teacher is not None and teacher.value is not None and gap is not None and gap.value is not None:
            stands = _stands(tone_of(gap), gap.value)
            notes.append(f"The teacher {self.reaches(teacher.value)}{stands} ({evidence(gap)}).")
        says = {BETTER: "finds it better", WORSE: "finds it worse", SAME: "sees no clear difference"}
        gains = self.metrics.difference(STUDENT, STUDENT_SFT) or SystemDifference()
        if self.decision.measure.name == "against" and gains.rougeL is not None and gains.rougeL.value is not None:
            notes.append(f"ROUGE-L: {points_apart(gains.rougeL.value)} than before ({evidence(gains.rougeL)}).")
        for judge, change in gains.win_rate.items():
            if judge != self.judge and change.value is not None:
                notes.append(
                    f"Judge {judge} {says.get(tone_of(change), 'has too little to tell')}: "
                    f"{points_apart(change.value)} ({evidence(change)}; {change.n:,} prompts)."
                )
        if n < SMALL:
            notes.append(f"Only {n} prompts were compared: below {SMALL}, take every figure as a rough one.")
        return tuple(notes)


def _mid(system: str) -> str:
    """A system's name within a sentence."""
    return {TEACHER: "the teacher", STUDENT_SFT: "the SFT student"}.get(system) or system_name(system)


def _stands(tone: str, gap: float) -> str:
    if tone in (BETTER, WORSE):
        side = "ahead of" if tone == BETTER else "behind"
        return f"; the student is {number(abs(gap), scale=100)} points {side} it"
    return f"; the student can't be told apart from it, at {number(gap, scale=100, sign=True)} points"
