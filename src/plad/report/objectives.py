"""Objectives in words."""

from plad.config import (
    AnchoredObjective,
    DpoObjective,
    LipoObjective,
    MarginObjective,
    Objective,
    PairObjective,
    RankObjective,
    RrhfObjective,
    SftObjective,
    SimpoObjective,
    SlicObjective,
)


def in_words(objective: Objective) -> str:
    """One sentence's worth: the loss, its settings, and what stands beside it."""
    if not isinstance(objective, PairObjective):
        return _loss(objective)
    parts = [_loss(objective), f"log-likelihood of a text as the {objective.length_normalization} over its tokens"]
    if objective.sft_weight:
        text = "best" if isinstance(objective, RrhfObjective) else "chosen"
        parts.append(f"plus {objective.sft_weight:g} x cross-entropy of the {text} text")
    if isinstance(objective, AnchoredObjective) and objective.anchor_weight:
        parts.append(f"plus {objective.anchor_weight:g} x squared distance from the starting student, halved")
    return ", ".join(parts)


def _loss(objective: Objective) -> str:
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
