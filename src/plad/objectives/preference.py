"""Preference losses from around PLaD: the same pairs, another loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from plad.objectives.pairs import NORMALIZATION, AnchoredObjective, Normalization, Pairs, TiedObjective

if TYPE_CHECKING:
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
    from torch.nn import functional as F

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
    return (beta - chosen + rejected).relu() - regularization * chosen


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
    from torch.nn import functional as F

    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


class DpoObjective(TiedObjective):
    """Direct preference optimisation; the starting student's log-probabilities are measured once and kept."""

    type: Literal["dpo"] = "dpo"

    def formula(self) -> str:
        """The tie."""
        return f"direct preference optimisation (DPO): beta {self.beta:g}"

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """DPO of every pair; how far the pair's margin has grown is a metric."""
        reference = pairs.reference_logps()
        better, worse = reference[pairs.better], reference[pairs.worse]
        gained = (pairs.chosen - pairs.rejected).detach() - (better - worse)
        return dpo(pairs.chosen, pairs.rejected, better, worse, beta=self.beta), {"margin_gained": gained}


class SlicObjective(AnchoredObjective):
    """Sequence likelihood calibration (SLiC-HF): a hinge and cross-entropy in its unit."""

    type: Literal["slic"] = "slic"
    length_normalization: Normalization = Field(default="sum", description=NORMALIZATION)
    beta: float = Field(default=1.0, ge=0, description="Margin in nats (of the whole text for sum, a token for mean).")
    regularization: float = Field(default=1.0, ge=0, description="Weight of -log P of the chosen text (lambda).")

    def formula(self) -> str:
        """Margin and lambda."""
        return f"sequence likelihood calibration (SLiC): beta {self.beta:g}, lambda {self.regularization:g}"

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """SLiC of every pair."""
        return slic(pairs.chosen, pairs.rejected, beta=self.beta, regularization=self.regularization), {}


class SimpoObjective(AnchoredObjective):
    """Simple preference optimisation (SimPO): no reference, a margin in the reward."""

    type: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0, description="Scale of the reward, which is log P of a text.")
    gamma: float = Field(default=1.0, ge=0, description="Margin of the reward.")

    def formula(self) -> str:
        """Scale and margin."""
        return f"simple preference optimisation (SimPO): beta {self.beta:g}, gamma {self.gamma:g}"

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """SimPO of every pair."""
        return simpo(pairs.chosen, pairs.rejected, beta=self.beta, gamma=self.gamma), {}
