"""Signs that training is breaking the student, or does nothing, read from its validations and its steps."""

from collections.abc import Mapping, Sequence

FELL = 0.2  # nats a token by which a log-probability must fall to count
DRIFT = 1.6  # factor by which the mean number of words may change
ENDING = 0.15  # share of answers that may stop ending by themselves
ORDER = 0.02  # share of pairs that must come into order, or may leave it
GAIN = 0.1  # nats a token by which the two log-probabilities of a pair must come nearer to their order
CHECKED = 3  # validations, the one before training included, after which an unchanged order counts
ENDS = 0.5  # share of answers that must end by themselves, however the student began
REPEATS = 0.4  # share of an answer's 4-grams that may have stood in it before, however the student began

_ADVICE = {
    "both log-probabilities fall": "raise distill.objective.sft_weight or anchor_weight, or lower the learning rate",
    "the order of the pairs does not change": "raise distill.learning_rate or epochs, or sample a weaker student",
    "the order of the pairs gets worse": "lower distill.learning_rate; plad show RUN pairs shows what it learns from",
    "answers get shorter": "lower distill.objective.beta, raise sft_weight, or use length_normalization: sum",
    "answers get longer": "lower distill.objective.beta, raise sft_weight, or use length_normalization: mean",
    "answers stop ending": "keep pairs.drop.truncated: both, raise sft_weight, or set rejected_end: false",
    "most answers are cut off": "raise generate.max_new_tokens, or fine-tune longer (sft.epochs)",
    "answers repeat themselves": "fine-tune longer (sft.epochs), or start from a larger model",
    "answers have no words": "plad show RUN generations shows them; fine-tune longer (sft.epochs)",
    "no pair was ever active": "raise distill.objective.beta, the margin that all pairs kept from the first step on, "
    "or compare with SeqKD, which learns from every answer",
    "the student is what it was": "raise distill.learning_rate or epochs; nothing was distilled",
}
_IDLE = ("the order of the pairs does not change",)  # says nothing more where training did nothing


def alarms(
    history: Sequence[Mapping[str, float]], kept: Mapping[str, float] | None = None, *, drifts: bool = True
) -> dict[str, str]:
    """What is wrong with some weights, each sign with its figures and what to try.

    Args:
        history: figures of each validation so far, the one before the first step first: chosen_logp and rejected_logp
            (nats a token of fixed pairs), accuracy (share of those pairs in the right order), words, ended, repeated.
        kept: of the weights to be judged; default: the latest.
        drifts: whether they are compared with the start, too.

    Returns:
        Sign -> sentence. The thresholds are this module's constants; they are set so that the runs known to have
        collapsed (3.8 words for 19, endless text) raise them and runs known to be sound do not.
    """
    if len(history) < 2:
        return {}
    first, last = history[0], history[-1] if kept is None else kept
    signs = (_drifts(first, last, len(history)) if drifts else {}) | _absolute(first, last)
    return {sign: f"{sign} ({figures}): {_ADVICE[sign]}" for sign, figures in signs.items()}


def sign_of(sentence: str) -> str:
    """The sign that a sentence is about."""
    return sentence.partition(" (")[0]


def _drifts(first: Mapping[str, float], last: Mapping[str, float], validations: int) -> dict[str, str]:
    """Signs that lie in a change since the start."""
    signs: dict[str, str] = {}
    if _change(first, last, "chosen_logp") < -FELL and _change(first, last, "rejected_logp") < -FELL:
        signs["both log-probabilities fall"] = (
            f"chosen {first['chosen_logp']:.2f} -> {last['chosen_logp']:.2f}, "
            f"rejected {first['rejected_logp']:.2f} -> {last['rejected_logp']:.2f} nats a token"
        )
    if validations >= CHECKED and first.get("accuracy", 1.0) < 1 - ORDER:
        change = _change(first, last, "accuracy")
        sign = "the order of the pairs gets worse" if change < -ORDER else "the order of the pairs does not change"
        gain = _change(first, last, "chosen_logp") - _change(first, last, "rejected_logp")
        if change < ORDER and gain < GAIN:
            signs[sign] = (
                f"{first['accuracy']:.0%} of the watched pairs were in order before, {last['accuracy']:.0%} are now"
            )
    if first["words"] and last["words"] < first["words"] / DRIFT:
        signs["answers get shorter"] = f"{first['words']:.1f} -> {last['words']:.1f} words"
    if first["words"] and last["words"] > first["words"] * DRIFT:
        signs["answers get longer"] = f"{first['words']:.1f} -> {last['words']:.1f} words"
    if _change(first, last, "ended") < -ENDING:
        signs["answers stop ending"] = f"{first['ended']:.0%} -> {last['ended']:.0%} end by themselves"
    return signs


def _absolute(first: Mapping[str, float], last: Mapping[str, float]) -> dict[str, str]:
    """Signs that are none the better for having been there at the start."""
    signs: dict[str, str] = {}
    if last.get("ended", 1.0) < ENDS:
        signs["most answers are cut off"] = f"{1 - last['ended']:.0%}, {1 - first['ended']:.0%} before training"
    if last.get("repeated", 0.0) > REPEATS:
        before = f", {first['repeated']:.0%} before training" if "repeated" in first else ""
        signs["answers repeat themselves"] = f"{last['repeated']:.0%} of their runs of four words stood in them{before}"
    if last.get("words", 1.0) < 1:
        signs["answers have no words"] = f"{last['words']:.1f} on average"
    return signs


def idle(active: Sequence[float], *, unchanged: bool) -> dict[str, str]:
    """Signs that training did nothing.

    Args:
        active: share of pairs that had a loss, by step; empty for an objective without pairs.
        unchanged: every weight is what it was.
    """
    sign = "the student is what it was" if unchanged else ""
    figures = "every weight equals its start"
    if active and not any(active):
        also = f"; {figures}" if unchanged else ""
        sign, figures = "no pair was ever active", f"0 % had a loss in each of {len(active):,} steps{also}"
    return {sign: f"{sign} ({figures}): {_ADVICE[sign]}"} if sign else {}


def together(of_validation: Mapping[str, str], of_training: Mapping[str, str]) -> dict[str, str]:
    """Both; where training did nothing, what its pairs lack is known, and no other advice is given about them."""
    return {**of_training, **{k: v for k, v in of_validation.items() if not of_training or k not in _IDLE}}


def _change(first: Mapping[str, float], last: Mapping[str, float], name: str) -> float:
    """The later value minus the earlier; 0 where it was not measured."""
    before, after = first.get(name), last.get(name)
    return 0.0 if before is None or after is None else after - before
