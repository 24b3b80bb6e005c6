"""Methods side by side: what each cost, and p-values that allow for how many are compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from plad.evaluate.run import SFT, STUDENT

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


def frame(costs: Mapping[str, Mapping[str, Any]]) -> str:
    """What the compared students have in common: says that updates and prompts are equal only where they are."""
    known = {system: (cost.get("updates"), cost.get("prompts")) for system, cost in costs.items()}
    start = "every method starts from the same fine-tuned student"
    if any(None in figures for figures in known.values()):
        return start
    if len(set(known.values())) == 1:
        return f"{start} and takes as many updates on as many of the same prompts"
    taken = ", ".join(f"{system} {updates} on {prompts}" for system, (updates, prompts) in known.items())
    return f"{start}; updates and prompts are not equal: {taken}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that hold for all comparisons of a family together.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than the one before, or above 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def add_comparison(metrics: dict[str, Any], methods: Sequence[str], costs: Mapping[str, Any]) -> None:
    """Write `p_holm` into the paired differences, and `comparison` beside them.

    Families are: every method and the student against the fine-tuned student; the student against every method. Each
    judge and each metric is a family of its own.

    Args:
        metrics: contents of metrics.json, changed in place.
        methods: systems that are baselines.
        costs: by system, the student included.
    """
    against_sft = [f"{system} - {SFT}" for system in (STUDENT, *methods)]
    against_student = [f"{STUDENT} - {system}" for system in methods]
    for pairs in (against_sft, against_student):
        found = [metrics["differences"][pair] for pair in pairs if pair in metrics["differences"]]
        for measure in dict.fromkeys(m for difference in found for m in difference if m != "win_rate"):
            _correct([difference[measure] for difference in found if measure in difference])
        for judge in dict.fromkeys(j for difference in found for j in difference["win_rate"]):
            _correct([difference["win_rate"][judge] for difference in found if judge in difference["win_rate"]])
    metrics["comparison"] = {"methods": list(methods), "costs": dict(costs)}
    metrics["method"] |= {"p_holm": P_HOLM, "comparison": f"{frame(costs)}; {COSTS}"}


def _correct(family: Sequence[dict[str, Any]]) -> None:
    tested = [e for e in family if e.get("p") is not None]
    for e, p in zip(tested, holm([e["p"] for e in tested]), strict=True):
        e["p_holm"] = p
