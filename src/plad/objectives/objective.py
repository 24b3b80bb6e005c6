"""Objectives as the trainer sees them: scores of a batch in, one loss a group out."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from plad.objectives.sft import sft
from plad.scoring.layout import Group
from plad.scoring.score import Scores


@dataclass(frozen=True, slots=True)
class ObjectiveOut:
    """What an objective makes of the scores of G groups.

    Attributes:
        losses: [G]; the loss of a batch is their sum over the sum of the groups' weights.
        active: [G] bool; where false, loss and gradient are exactly zero.
        metrics: name -> [G], without gradient; not a number where a metric doesn't apply to a group.
    """

    losses: Tensor
    active: Tensor
    metrics: dict[str, Tensor]


class Objective(Protocol):
    """Maps scores to losses."""

    @property
    def states(self) -> bool:
        """Whether it needs the states behind every token."""
        ...

    @property
    def logits(self) -> bool:
        """Whether it needs log-probabilities."""
        ...

    def weight(self, group: Group) -> float:
        """The group's share of the batch loss's denominator."""
        ...

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of the groups behind `scores`."""
        ...


@dataclass(frozen=True, slots=True)
class SftLoss:
    """Cross-entropy of every completion, summed over a group's tokens: a batch's loss is a mean over its tokens."""

    @property
    def states(self) -> bool:
        """Log-probabilities are enough."""
        return False

    @property
    def logits(self) -> bool:
        """It needs them."""
        return True

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
