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
