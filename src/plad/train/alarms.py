"""Signs that a preference objective is breaking the student, read from the validations while it trains."""

from collections.abc import Mapping, Sequence

FELL = 0.2  # nats a token by which a log-probability must fall to count
DRIFT = 1.6  # factor by which the mean number of words may change
ENDING = 0.15  # share of answers that may stop ending by themselves
ORDER = 0.02  # share of pairs that must come into order, or may leave it
GAIN = 0.1  # nats a token by which the two log-probabilities of a pair must come nearer to their order
CHECKED = 3  # validations, the one before training included, after which an unchanged order counts

_ADVICE = {
    "both log-probabilities fall": "raise distill.objective.sft_weight or anchor_weight, or lower the learning rate",
    "the order of the pairs does not change": "raise distill.learning_rate or epochs, or sample a weaker student",
    "the order of the pairs gets worse": "lower distill.learning_rate; plad show RUN pairs shows what it learns from",
    "answers get shorter": "lower distill.objective.beta, raise sft_weight, or use length_normalization: sum",
    "answers get longer": "lower distill.objective.beta, raise sft_weight, or use length_normalization: mean",
    "answers stop ending": "keep pairs.drop.truncated: both, raise sft_weight, or set rejected_end: false",
}


def alarms(history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """What is wrong by the latest validation, each with its figures and what to try.

    Args:
        history: figures of each validation so far, the one before the first step first: chosen_logp and rejected_logp
            (nats a token of fixed pairs), accuracy (share of those pairs in the right order), words, ended.

    Returns:
        Sign -> sentence. The thresholds are this module's constants; they are set so that the runs known to have
        collapsed (3.8 words for 19, endless text) raise them and runs known to be sound do not.
    """
    if len(history) < 2:
        return {}
    first, last = history[0], history[-1]
    signs: dict[str, str] = {}
    if _change(history, "chosen_logp") < -FELL and _change(history, "rejected_logp") < -FELL:
        signs["both log-probabilities fall"] = (
            f"chosen {first['chosen_logp']:.2f} -> {last['chosen_logp']:.2f}, "
            f"rejected {first['rejected_logp']:.2f} -> {last['rejected_logp']:.2f} nats a token"
        )
    if len(history) >= CHECKED and first.get("accuracy", 1.0) < 1 - ORDER:
        change = _change(history, "accuracy")
        sign = "the order of the pairs gets worse" if change < -ORDER else "the order of the pairs does not change"
        gain = _change(history, "chosen_logp") - _change(history, "rejected_logp")
        if change < ORDER and gain < GAIN:
            signs[sign] = (
                f"{first['accuracy']:.0%} of the watched pairs were in order before, {last['accuracy']:.0%} are now"
            )
    if first["words"] and last["words"] < first["words"] / DRIFT:
        signs["answers get shorter"] = f"{first['words']:.1f} -> {last['words']:.1f} words"
    if first["words"] and last["words"] > first["words"] * DRIFT:
        signs["answers get longer"] = f"{first['words']:.1f} -> {last['words']:.1f} words"
    if _change(history, "ended") < -ENDING:
        signs["answers stop ending"] = f"{first['ended']:.0%} -> {last['ended']:.0%} end by themselves"
    return {sign: f"{sign} ({figures}): {_ADVICE[sign]}" for sign, figures in signs.items()}


def _change(history: Sequence[Mapping[str, float]], name: str) -> float:
    """The latest value minus the first; 0 where it was not measured."""
    first, last = history[0].get(name), history[-1].get(name)
    return 0.0 if first is None or last is None else last - first
