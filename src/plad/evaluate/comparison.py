"""Methods side by side: what each cost, and p-values that allow for how many are compared."""

from collections.abc import Mapping, Sequence
from typing import get_args

from plad.evaluate.metrics import SFT, STUDENT, Cost, Difference, MethodComparison, Metrics, TextMetric
from plad.evaluate.stats import holm

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
    against_sft = [f"{system} - {SFT}" for system in (STUDENT, *methods)]
    against_student = [f"{STUDENT} - {system}" for system in methods]
    for pairs in (against_sft, against_student):
        family = {pair: differences[pair] for pair in pairs if pair in differences}
        by_metric = {m: _corrected({k: d.metric(m) for k, d in family.items()}) for m in get_args(TextMetric)}
        judges = dict.fromkeys(judge for d in family.values() for judge in d.win_rate)
        by_judge = {j: _corrected({k: d.win_rate.get(j) for k, d in family.items()}) for j in judges}
        for pair, difference in family.items():
            rates = {judge: by_judge[judge][pair] for judge in difference.win_rate}
            metrics_of = {m: by_pair[pair] for m, by_pair in by_metric.items() if pair in by_pair}
            differences[pair] = difference.model_copy(update={"win_rate": rates, **metrics_of})
    return metrics.model_copy(
        update={
            "differences": differences,
            "comparison": MethodComparison(methods=tuple(methods), costs=dict(costs)),
            "method": {**metrics.method, "p_holm": P_HOLM, "comparison": f"{frame(costs)}; {COSTS}"},
        }
    )


def _corrected(family: Mapping[str, Difference | None]) -> dict[str, Difference]:
    """The differences that there are, those that were tested with their corrected p-values."""
    known = {pair: difference for pair, difference in family.items() if difference is not None}
    tested = {pair: d.p for pair, d in known.items() if d.p is not None}
    corrected = zip(tested, holm(list(tested.values())), strict=True)
    return known | {pair: known[pair].model_copy(update={"p_holm": p}) for pair, p in corrected}
