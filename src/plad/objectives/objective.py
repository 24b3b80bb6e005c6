"""Objectives as the trainer sees them: scores of a batch in, one loss a group out."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from plad.config import RankObjective, SftObjective
from plad.errors import DataError
from plad.objectives.calibration import rank
from plad.objectives.sft import sft
from plad.scoring.layout import Group
from plad.scoring.score import Scores


@dataclass(frozen=True, slots=True)
class ObjectiveOut:
    """What an objective makes of the scores of G groups.

    Attributes:
        losses: [G]; the loss of a batch is their sum over the sum of the groups' weights.
        active: [G] bool; where false, loss and gradient are exactly zero.
        metrics: name -> [G], without gradient.
    """

    losses: Tensor
    active: Tensor
    metrics: dict[str, Tensor]


class Objective(Protocol):
    """Maps scores to losses."""

    def weight(self, group: Group) -> float:
        """The group's share of the batch loss's denominator."""
        ...

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of the groups behind `scores`."""
        ...


@dataclass(frozen=True, slots=True)
class SftLoss:
    """Cross-entropy of every completion, summed over a group's tokens: a batch's loss is a mean over its tokens."""

    def weight(self, group: Group) -> float:
        """Completion tokens of the group."""
        return float(sum(map(len, group.completions)))

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Loss of a group: -sum log P of its completions' tokens, in nats; 0 for an empty completion."""
        sizes = torch.tensor(scores.sizes, device=scores.logps.device)
        owner = torch.repeat_interleave(sizes, output_size=len(scores.lengths))
        losses = scores.logps.new_zeros(len(sizes)).index_add(0, owner, sft(scores.sums()))
        tokens = torch.zeros_like(sizes).index_add(0, owner, scores.lengths)
        nll = losses.detach() / tokens.clamp(min=1)
        return ObjectiveOut(losses, tokens > 0, {"nll": nll})


@dataclass(frozen=True, slots=True)
class RankLoss:
    """Ranking calibration of chosen against rejected texts, with an optional cross-entropy of the chosen ones.

    A group's loss is the mean over its pairs.

    Attributes:
        beta: margin in nats, of the whole text (sum) or a token (mean).
        length_normalization: what log P of a text is: the sum over its tokens, or their mean.
        sft_weight: weight of the chosen texts' mean token cross-entropy; 0 is Eq. 4 alone.
    """

    beta: float
    length_normalization: Literal["sum", "mean"]
    sft_weight: float

    def weight(self, group: Group) -> float:
        """Every prompt counts once."""
        return 1.0

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Loss of a group; a pair with an empty text has no ranking loss.

        Raises:
            DataError: a group has no chosen or no rejected text.
        """
        if not all(group.preferences for group in scores.groups):
            raise DataError("ranking needs a chosen and a rejected text in every group")
        means = scores.means()
        values = means if self.length_normalization == "mean" else scores.sums()
        better, worse, group = _preferences(scores)
        chosen, rejected = values[better], values[worse]
        ranked = (scores.lengths[better] > 0) & (scores.lengths[worse] > 0)
        hinge = torch.where(ranked, rank(chosen, rejected, beta=self.beta), 0.0)
        pairs = torch.bincount(group, minlength=len(scores.sizes))

        def average(of_pairs: Tensor) -> Tensor:
            return values.new_zeros(len(pairs)).index_add(0, group, of_pairs.to(values.dtype)) / pairs

        losses = average(hinge)
        metrics = {
            "chosen_logp": average(means[better]),
            "rejected_logp": average(means[worse]),
            "margin": average(chosen - rejected),
            "accuracy": average(chosen > rejected),
            "active": average(hinge != 0),
        }
        active = losses.detach() != 0  # a loss that is not a number counts as active
        if self.sft_weight:
            losses = losses + self.sft_weight * average(sft(means[better]))
            active = torch.ones_like(active)
        return ObjectiveOut(losses, active, {name: value.detach() for name, value in metrics.items()})


def _preferences(scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """[P] indices of the chosen and of the rejected completion of every pair, and [P] its group."""
    pairs: list[tuple[int, int, int]] = []
    start = 0
    for index, group in enumerate(scores.groups):
        pairs += [(start + better, start + worse, index) for better, worse in group.preferences]
        start += len(group.completions)
    better, worse, group = torch.tensor(pairs, device=scores.logps.device).unbind(1)
    return better, worse, group


def make_objective(section: RankObjective | SftObjective) -> Objective:
    """The objective a configuration asks for."""
    if isinstance(section, SftObjective):
        return SftLoss()
    return RankLoss(section.beta, section.length_normalization, section.sft_weight)
