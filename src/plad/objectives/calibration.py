"""Sequence calibration losses."""

import torch
from torch import Tensor


def rank(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Ranking calibration: the chosen text must be likelier than the rejected one by a margin.

        L_rank = max(0, beta - log P(y+|x) + log P(y-|x))

    Args:
        chosen: [B] log P(y+|x) in nats, of the whole text or a token.
        rejected: [B] log P(y-|x), in the same unit.
        beta: the margin, in the same unit.

    Returns:
        [B] losses. Where the margin is met, loss and gradient are exactly zero.

    Source: PLaD (arXiv 2406.02886), Eq. 4.
    """
    return torch.relu(beta - chosen + rejected)


def margin(chosen: Tensor, rejected: Tensor, chosen_score: Tensor, rejected_score: Tensor, *, beta: float) -> Tensor:
    """Margin calibration: the chosen text must be likelier by as much as it resembles the reference more.

        L_margin = max(0, beta (s(y+; y) - s(y-; y)) - log P(y+|x) + log P(y-|x))

    Args:
        chosen: [B] log P(y+|x) in nats, of the whole text or a token.
        rejected: [B] log P(y-|x), in the same unit.
        chosen_score, rejected_score: [B] s(.; y), a constant of the loss.
        beta: nats a unit of score.

    Returns:
        [B] losses. Where the rejected text resembles the reference more, it may be the likelier one at no cost.

    Source: PLaD (arXiv 2406.02886), Eq. 5.
    """
    return torch.relu(beta * (chosen_score - rejected_score) - chosen + rejected)


def anchor(logps: Tensor, reference: Tensor) -> Tensor:
    """How far the student has moved from where it started, on texts that it sampled there.

        L_anchor = 1/2 (log P(y|x) - log P_0(y|x))^2

    On texts drawn from P_0 its mean estimates KL(P_0 || P). Beside a hinge, whose slope is 1, it has the same slope
    where the text has moved by 1 / weight: no further is it pushed.

    Args:
        logps: [B] log P(y|x) in nats, of the whole text or a token.
        reference: [B] log P_0(y|x) by the starting student, in the same unit.

    Returns:
        [B] losses, in squared nats.

    Source: the estimator k2 of Schulman, "Approximating KL divergence" (2020).
    """
    return 0.5 * (logps - reference) ** 2
