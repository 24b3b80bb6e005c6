"""Objectives on all candidate texts of one prompt, ordered by a scorer's quality or by who wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from plad.objectives.base import Texts
from plad.objectives.pairs import PairObjective, Pairs, TiedObjective

if TYPE_CHECKING:
    from torch import Tensor


def rrhf(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Ranking responses: a better text must not be less likely, a token, than a worse one.

        L_rank = sum over i better than j of max(0, p_j - p_i),  p = log P(y|x) / |y|

    Args:
        chosen, rejected: [B] p_i and p_j.

    Returns:
        [B] losses of the pairs, to be summed over a prompt's; the cross-entropy of its best text belongs beside them.

    Source: RRHF (Yuan et al., arXiv 2304.05302).
    """
    return (rejected - chosen).relu()


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
    discounts = (1 / rank.log1p() for rank in (better_rank, worse_rank))
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
    from torch.nn import functional as F

    return weights * F.softplus(rejected - chosen)


def ordered(texts: Texts) -> tuple[Tensor, Tensor]:
    """Every two texts of a prompt whose order is known, [P] and [P]: by quality where there is one, else preference."""
    import torch

    group, quality = texts.group, texts.quality
    by_quality = (group[:, None] == group) & (quality >= 0) & (quality[:, None] > quality)
    preferred = quality[texts.better] < 0
    pairs = torch.stack([texts.better[preferred], texts.worse[preferred]], 1)
    better, worse = torch.cat([pairs, by_quality.nonzero()]).unbind(1)
    return better, worse


def gains(texts: Texts) -> Tensor:
    """[M] how often each candidate is better than another one, from 0 to 1; an unknown order counts one half.

    Source: LiPO (Liu et al., arXiv 2402.01878): psi, the mean probability of a win.
    """
    better, worse = ordered(texts)
    wins = texts.sums.new_zeros(len(texts.group), len(texts.group)).index_put((better, worse), texts.sums.new_ones(()))
    candidates = texts.lengths.new_zeros(texts.groups).index_add(0, texts.group, texts.candidate.to(texts.lengths))
    others = candidates[texts.group] - 1
    return (0.5 * (others + wins.sum(1) - wins.sum(0)) / others.clamp(min=1)).where(texts.candidate, 0.0)


def places(texts: Texts, rewards: Tensor) -> Tensor:
    """[M] place of every text among its prompt's candidates by `rewards` [M], from 1 on; of equal texts the first."""
    index = (texts.lengths + 1).cumsum(0)  # rises from text to text
    # above[i, j]: j stands before i in the student's order
    above = (rewards > rewards[:, None]) | ((rewards == rewards[:, None]) & (index < index[:, None]))
    rivals = (texts.group == texts.group[:, None]) & texts.candidate
    return (1 + (above & rivals).sum(1)).to(rewards.dtype)


class RrhfObjective(PairObjective):
    """Ranking responses (RRHF): a hinge without margin over all ordered pairs, and cross-entropy of the best text."""

    summed: ClassVar[bool] = True
    imitates: ClassVar[str] = "best"

    type: Literal["rrhf"] = "rrhf"
    sft_weight: float = Field(default=1.0, ge=0, description="Weight of the best text's mean token cross-entropy.")

    def formula(self) -> str:
        """It has no settings of its own."""
        return "ranking responses (RRHF)"

    def ordered(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """By quality or preference."""
        return ordered(texts)

    def imitated(self, texts: Texts, better: Tensor) -> Tensor:
        """The best texts: those of highest quality, or all that are chosen."""
        best = texts.quality.new_full((texts.groups,), -1).scatter_reduce(0, texts.group, texts.quality, "amax")
        best = best[texts.group]
        return texts.chosen.where(best < 0, texts.quality == best).nonzero().squeeze(1)

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """RRHF of every ordered pair."""
        return rrhf(pairs.chosen, pairs.rejected), {}


class LipoObjective(TiedObjective):
    """Listwise preference optimisation (LiPO-lambda) over all candidates of a prompt."""

    summed: ClassVar[bool] = True

    type: Literal["lipo"] = "lipo"

    def formula(self) -> str:
        """The tie."""
        return f"listwise preference optimisation (LiPO-lambda): beta {self.beta:g}"

    def ordered(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """By quality or preference."""
        return ordered(texts)

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """LiPO of every ordered pair; its weight is a metric."""
        rewards = self.beta * (pairs.logps - pairs.reference_logps())
        gain, place = gains(pairs.texts), places(pairs.texts, rewards.detach())
        weights = lambda_weights(gain[pairs.better], gain[pairs.worse], place[pairs.better], place[pairs.worse])
        return lipo(rewards[pairs.better], rewards[pairs.worse], weights), {"lambda_weight": weights}
