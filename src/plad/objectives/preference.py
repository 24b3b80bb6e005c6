"""Preference losses from around PLaD: the same pairs, another loss."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo(
    chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, *, beta: float
) -> Tensor:
    """Direct preference optimisation.

        L_dpo = -log sigmoid(beta (log P(y+|x) / P_0(y+|x) - log P(y-|x) / P_0(y-|x)))

    Args:
        chosen, rejected: [B] log P in nats.
        chosen_reference, rejected_reference: [B] log P_0 by the starting student, in the same unit.
        beta: strength of the tie to P_0, one over nats.

    Returns:
        [B] losses.

    Source: Rafailov et al. (arXiv 2305.18290), Eq. 7.
    """
    return -F.logsigmoid(beta * ((chosen - chosen_reference) - (rejected - rejected_reference)))


def slic(chosen: Tensor, rejected: Tensor, *, beta: float, regularization: float) -> Tensor:
    """Sequence likelihood calibration: a hinge, and cross-entropy that keeps the student near its fine-tuning.

        L_slic = max(0, beta - log P(y+|x) + log P(y-|x)) - lambda log P(y+|x)

    Args:
        chosen, rejected: [B] log P in nats.
        beta: the margin (delta in the paper), in the same unit.
        regularization: lambda.

    Returns:
        [B] losses.

    Source: SLiC-HF (Zhao et al., arXiv 2305.10425), with y+ as the text of its regularisation.
    """
    return torch.relu(beta - chosen + rejected) - regularization * chosen


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Simple preference optimisation: no reference; the likelihood of a text, a token, is its reward.

        L_simpo = -log sigmoid(beta (log P(y+|x) / |y+| - log P(y-|x) / |y-|) - gamma)

    Args:
        chosen, rejected: [B] log P in nats a token.
        beta: scale of the reward, one over nats.
        gamma: margin of the reward.

    Returns:
        [B] losses.

    Source: Meng et al. (arXiv 2405.14734), Eq. 6.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def rrhf(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Ranking responses: a better text must not be less likely, a token, than a worse one.

        L_rank = sum over i better than j of max(0, p_j - p_i),  p = log P(y|x) / |y|

    Args:
        chosen, rejected: [B] p_i and p_j.

    Returns:
        [B] losses of the pairs, to be summed over a prompt's; the cross-entropy of its best text belongs beside them.

    Source: RRHF (Yuan et al., arXiv 2304.05302).
    """
    return torch.relu(rejected - chosen)


def lambda_weights(better_gain: Tensor, worse_gain: Tensor, better_rank: Tensor, worse_rank: Tensor) -> Tensor:
    """By how much the discounted cumulative gain of a list changes when two of its texts change places.

        Delta_ij = |2^psi_i - 2^psi_j| |1 / log(1 + tau_i) - 1 / log(1 + tau_j)|

    Args:
        better_gain, worse_gain: [B] psi, the quality of the two texts from 0 to 1.
        better_rank, worse_rank: [B] tau, their places from 1 on in the student's own order.

    Returns:
        [B] weights.

    Source: LiPO (Liu et al., arXiv 2402.01878), after LambdaRank.
    """
    discounts = (1 / torch.log1p(rank) for rank in (better_rank, worse_rank))
    return (2**better_gain - 2**worse_gain).abs() * (next(discounts) - next(discounts)).abs()


def lipo(chosen: Tensor, rejected: Tensor, weights: Tensor) -> Tensor:
    """Listwise preference optimisation: pairs count by what their order is worth to the whole list.

        L_lipo = sum over psi_i > psi_j of Delta_ij log(1 + exp(s_j - s_i)),  s = beta log P(y|x) / P_0(y|x)

    Args:
        chosen, rejected: [B] s_i and s_j.
        weights: [B] Delta_ij, constants of the loss.

    Returns:
        [B] losses of the pairs, to be summed over a prompt's.

    Source: LiPO-lambda (Liu et al., arXiv 2402.01878).
    """
    return weights * F.softplus(rejected - chosen)
