"""What decides on the test set whether the student is better, what a reader must know of judges, methods compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from plad.config.judges import JudgeSection
from plad.evaluate.metrics import (
    Cost,
    Difference,
    Estimate,
    HeadToHead,
    MethodComparison,
    Metrics,
    SystemFigures,
    TextMetric,
    WinRate,
)
from plad.evaluate.stats import SMALL, holm
from plad.judges.measure import NOTHING, Measure, against_each_other, against_target, by_rouge, most
from plad.records import STUDENT, STUDENT_SFT, TARGET, Example

OBEYS = 0.02  # above this share of canaries that a judge obeys, a reader is warned
POSITION_BIAS = 0.2  # above this share of verdicts that order decides, a reader is warned


Tested = TypeVar("Tested", Difference, HeadToHead)
P_HOLM = (
    "p-values of the methods against one system, by one judge or metric, corrected for their number (Holm); `p` beside "
    "it and all intervals hold for one comparison alone"
)
COSTS = (
    "seconds are of training, warm-up and sampling in it, and of the teacher's pass where its logits are stored; "
    "validation and what is measured of pairs are left out; memory is the peak of the process (of the GPUs, where the "
    "models are there) in a training step, models included; tokens are of the answers a method learns from: cached "
    "before, fresh while training"
)


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
            return None if duel is None else above_even(duel)
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
    rouge = metrics.systems.get(STUDENT, SystemFigures()).rougeL
    if rouge is None or rouge.value is None:
        return Decision(metrics, NOTHING)
    return Decision(metrics, rouge_of(metrics))


def rouge_of(metrics: Metrics) -> Measure:
    """ROUGE-L; where the target has a figure of its own, rows have further references."""
    target = metrics.systems.get(TARGET, SystemFigures()).rougeL
    return by_rouge(2 if target is not None and target.n else 1)


def above_even(duel: HeadToHead) -> Difference:
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
        seeds=duel.seeds,
        sd_seeds=duel.sd_seeds,
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


def frame(costs: Mapping[str, Cost]) -> str:
    """What the compared students have in common: says that updates and prompts are equal only where they are."""
    known = {system: (cost.updates, cost.prompts) for system, cost in costs.items()}
    start = "every method starts from the same fine-tuned student"
    if any(None in figures for figures in known.values()):
        return start
    if len(set(known.values())) == 1:
        return f"{start} and takes as many updates on as many of the same prompts"
    taken = ", ".join(f"{system} {updates} on {prompts}" for system, (updates, prompts) in known.items())
    return f"{start}; updates and prompts are not equal: {taken}"


def with_comparison(metrics: Metrics, methods: Sequence[str], costs: Mapping[str, Cost]) -> Metrics:
    """The metrics with `comparison`, and with `p_holm` in the paired differences.

    Families are: every method and the student against the fine-tuned student; the student against every method. Each
    judge and each metric is a family of its own.

    Args:
        methods: systems that are baselines.
        costs: by system, the student included.
    """
    differences = dict(metrics.differences)
    against_sft = [f"{system} - {STUDENT_SFT}" for system in (STUDENT, *methods)]
    against_student = [f"{STUDENT} - {system}" for system in methods]
    for pairs in (against_sft, against_student):
        family = {pair: differences[pair] for pair in pairs if pair in differences}
        by_metric = {m: _corrected({k: d.metric(m) for k, d in family.items()}) for m in get_args(TextMetric)}
        judges = dict.fromkeys(judge for d in family.values() for judge in d.win_rate)
        by_judge = {j: _corrected({k: d.win_rate.get(j) for k, d in family.items()}) for j in judges}
        opposed = dict.fromkeys(judge for d in family.values() for judge in d.against)
        by_opponent = {j: _corrected({k: d.against.get(j) for k, d in family.items()}) for j in opposed}
        for pair, difference in family.items():
            rates = {judge: by_judge[judge][pair] for judge in difference.win_rate}
            against = {judge: by_opponent[judge][pair] for judge in difference.against}
            metrics_of = {m: by_pair[pair] for m, by_pair in by_metric.items() if pair in by_pair}
            update = {"win_rate": rates, **metrics_of, **({"against": against} if against else {})}
            differences[pair] = difference.model_copy(update=update)
    return metrics.model_copy(
        update={
            "differences": differences,
            "comparison": MethodComparison(methods=tuple(methods), costs=dict(costs)),
            "method": {**metrics.method, "p_holm": P_HOLM, "comparison": f"{frame(costs)}; {COSTS}"},
        }
    )


def _corrected(family: Mapping[str, Tested | None]) -> dict[str, Tested]:
    """The differences that there are, those that were tested with their corrected p-values."""
    known = {pair: difference for pair, difference in family.items() if difference is not None}
    tested = {pair: d.p for pair, d in known.items() if d.p is not None}
    corrected = zip(tested, holm(list(tested.values())), strict=True)
    return known | {pair: known[pair].model_copy(update={"p_holm": p}) for pair, p in corrected}
