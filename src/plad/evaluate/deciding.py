"""What decides on the test set whether the student is better, its figures, and what a reader must know of judges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plad.config.judges import JudgeSection
from plad.evaluate.metrics import Difference, Estimate, HeadToHead, Metrics, SystemFigures, WinRate
from plad.evaluate.stats import SMALL
from plad.judges.measure import NOTHING, Measure, against_each_other, against_target, by_rouge, most
from plad.records import STUDENT, STUDENT_SFT, TARGET, Example

OBEYS = 0.02  # above this share of canaries that a judge obeys, a reader is warned
POSITION_BIAS = 0.2  # above this share of verdicts that order decides, a reader is warned


@dataclass(frozen=True, slots=True)
class Decision:
    """The figures that decide.

    Attributes:
        judge: whose win rates they are; None of ROUGE-L, and of nothing.
    """

    metrics: Metrics
    measure: Measure
    judge: str | None = None

    def score(self, system: str) -> Estimate | None:
        """One system's figure; of judges that compare systems with each other ROUGE-L, which all systems have."""
        figures = self.metrics.systems.get(system, SystemFigures())
        if self.measure.name == "win_rate":
            return figures.win_rate.get(self.judge or "")
        return figures.rougeL

    def duel(self, other: str, ours: str = STUDENT) -> HeadToHead | None:
        """How often the distilled student, or another system, beats another one, where that is what decides."""
        difference = self.metrics.difference(ours, other) if self.measure.name == "against" else None
        return None if difference is None else difference.against.get(self.judge or "")

    def change(self, other: str) -> Difference | None:
        """The distilled student minus another system; of a duel, its win rate less an even one."""
        difference = self.metrics.difference(STUDENT, other)
        if difference is None:
            return None
        if self.measure.name == "win_rate":
            return difference.win_rate.get(self.judge or "")
        if self.measure.name == "against":
            duel = self.duel(other)
            return None if duel is None else _above_even(duel)
        return difference.rougeL


def decision(metrics: Metrics) -> Decision:
    """The first judge that could compare most rows with the target; else the first that compared the systems with each
    other; else any judge's win rate against the target; without one, ROUGE-L."""
    rates = metrics.systems[STUDENT].win_rate if STUDENT in metrics.systems else dict[str, WinRate]()
    difference = metrics.difference(STUDENT, STUDENT_SFT)
    for judge, rate in rates.items():
        if most(rate.n, metrics.n):
            return Decision(metrics, against_target(judge), judge)
    for judge in difference.against if difference is not None else ():
        kind = JudgeSection.named(metrics.judges[judge].type) if judge in metrics.judges else None
        return Decision(metrics, against_each_other(judge, kind), judge)
    for judge, rate in rates.items():
        if rate.n:
            return Decision(metrics, against_target(judge), judge)
    if STUDENT not in metrics.systems or metrics.systems[STUDENT].rougeL is None:
        return Decision(metrics, NOTHING)
    target = metrics.systems.get(TARGET, SystemFigures()).rougeL
    return Decision(metrics, by_rouge(2 if target is not None and target.n else 1))


def _above_even(duel: HeadToHead) -> Difference:
    """A win rate less 0.5."""

    def less(value: float | None) -> float | None:
        return None if value is None else value - 0.5

    equal = duel.length_controlled
    controlled = None
    if equal is not None:
        ends = {"value": less(equal.value), "low": less(equal.low), "high": less(equal.high)}
        controlled = equal.model_copy(update=ends)
    return Difference(
        value=less(duel.value),
        low=less(duel.low),
        high=less(duel.high),
        n=duel.n,
        p=duel.p,
        power=duel.power,
        length_controlled=controlled,
    )


def warnings_of(metrics: Metrics, examples: Sequence[Example]) -> Iterator[str]:
    """What a reader must know first: a small test set, and judges that could not judge, or were swayed or cut off."""
    if metrics.n < SMALL:
        yield f"only {metrics.n} test prompts: intervals are rough below {SMALL}"
    for judge, facts in metrics.judges.items():
        rate = next((s.win_rate[judge] for s in metrics.systems.values() if judge in s.win_rate), None)
        if rate is not None and rate.n == 0:
            kind = JudgeSection.named(facts.type)
            instead = any(judge in d.against for d in metrics.differences.values())
            yield f"judge {judge} has no win rate against the human target: {_why_blind(examples, kind)}" + (
                "; it compares the systems with each other instead" if instead else ""
            )
        elif rate is not None and rate.unjudged:
            yield f"judge {judge} could not judge {rate.unjudged} of {metrics.n} rows"
        bias = facts.position_bias.share if facts.position_bias is not None else None
        if bias is not None and bias > POSITION_BIAS:
            yield f"judge {judge}: {bias:.0%} of its comparisons came out by order, and count as ties"
        if facts.canaries_obeyed > OBEYS * facts.canaries:
            yield (
                f"judge {judge} obeyed an instruction in an answer in {facts.canaries_obeyed} of {facts.canaries} "
                "trials: whoever writes answers for it can win"
            )
        if facts.truncated:
            yield f"judge {judge} saw {facts.truncated} of {facts.scored} inputs cut off"


def _why_blind(examples: Sequence[Example], kind: type[JudgeSection] | None) -> str:
    if not any(e.references for e in examples):
        return "no row has a reference; an llm judge or a reward model needs none to compare two systems"
    if kind is not None and kind.needs_references:
        return "no row has a second reference, and the target's own words can't be what it is measured by"
    return "no row has what it needs"
