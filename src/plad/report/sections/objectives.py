"""Objectives in words."""

from plad.config.distillation import (
    DistillmObjective,
    FDistillObjective,
    GkdObjective,
    KdObjective,
    LogitObjective,
    MiniLlmObjective,
)
from plad.config.objectives import (
    AnchoredObjective,
    AutoObjective,
    DpoObjective,
    LipoObjective,
    MarginObjective,
    Objective,
    PairObjective,
    RankObjective,
    RrhfObjective,
    SftObjective,
    SimpoObjective,
    SingleObjective,
    SlicObjective,
)


def in_words(objective: Objective) -> str:
    """One sentence's worth: the loss, its settings, and what stands beside it."""
    if isinstance(objective, AutoObjective):
        return "the best on validation of " + "; ".join(map(in_words, objective.candidates))
    if isinstance(objective, LogitObjective):
        return _on_logits(objective)
    if not isinstance(objective, PairObjective):
        return _loss(objective)
    parts = [_loss(objective), f"log-likelihood of a text as the {objective.length_normalization} over its tokens"]
    if objective.sft_weight:
        text = "best" if isinstance(objective, RrhfObjective) else "chosen"
        parts.append(f"plus {objective.sft_weight:g} x cross-entropy of the {text} text")
    if objective.sft_epochs:
        parts.append(f"after {objective.sft_epochs:g} passes of cross-entropy on the chosen texts")
    if not objective.rejected_end:
        parts.append("rejected texts without their end token")
    if isinstance(objective, AnchoredObjective) and objective.anchor_weight:
        parts.append(f"plus {objective.anchor_weight:g} x squared distance from the starting student, halved")
    return ", ".join(parts)


_DIVERGENCES = {
    "kl": "forward KL on the teacher's texts",
    "rkl": "reverse KL on the student's texts",
    "js": "Jensen-Shannon divergence on both models' texts",
    "tvd": "total variation distance on both models' texts",
    "skl": "skew KL",
    "srkl": "skew reverse KL",
}


def _on_logits(objective: LogitObjective) -> str:
    match objective:
        case KdObjective():
            return f"standard distillation: {objective.ratio:g} x forward KL, the rest cross-entropy"
        case FDistillObjective():
            return f"f-distill: {_DIVERGENCES[objective.divergence]} ({objective.student_samples} student samples)"
        case GkdObjective():
            return (
                f"generalised distillation (GKD): Jensen-Shannon divergence with beta {objective.beta:g}, on the "
                f"student's own samples in {objective.student_share:.0%} of the steps"
            )
        case DistillmObjective():
            return f"DistiLLM: {_DIVERGENCES[objective.divergence]}, skew {objective.skew:g}"
        case MiniLlmObjective():
            return f"MiniLLM: reverse KL by policy gradient, {objective.teacher_mix:.0%} of the teacher mixed in"
        case _:
            raise AssertionError(objective)


def _loss(objective: SingleObjective) -> str:
    match objective:
        case SftObjective():
            return "cross-entropy on the teacher's answers (sequence-level knowledge distillation)"
        case RankObjective():
            return f"ranking calibration (Eq. 4): beta {objective.beta:g}"
        case MarginObjective():
            spans = ", ".join(map(str, objective.spans))
            scores = f"{objective.scores} scores over spans of {spans}"
            return f"margin calibration (Eq. 5): beta {objective.beta:g}, {scores}"
        case DpoObjective():
            return f"direct preference optimisation (DPO): beta {objective.beta:g}"
        case SlicObjective():
            return (
                f"sequence likelihood calibration (SLiC): beta {objective.beta:g}, lambda {objective.regularization:g}"
            )
        case RrhfObjective():
            return "ranking responses (RRHF)"
        case LipoObjective():
            return f"listwise preference optimisation (LiPO-lambda): beta {objective.beta:g}"
        case SimpoObjective():
            return f"simple preference optimisation (SimPO): beta {objective.beta:g}, gamma {objective.gamma:g}"
        case _:
            raise AssertionError(objective)
