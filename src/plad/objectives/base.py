"""An objective: what a config asks for and what training minimises, in one class. Tensors in, losses out.

Files here import torch only where they compute, so that a config is read without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plad.config.objectives import ObjectiveSection
from plad.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Texts:
    """M texts of G prompts, the texts of one prompt next to each other, and the P pairs they make.

    Attributes:
        sums: [M] log P of each text: the sum over its tokens, in nats, differentiable; 0 for an empty one.
        lengths: [M] tokens of each text.
        group: [M] which prompt's it is.
        groups: G.
        candidate: [M] bool; the others are read only to be compared with, and enter no loss.
        chosen: [M] bool; preferred to other texts of its prompt.
        better, worse: [P] indices of the texts of each pair.
        quality: [M] place of each text among its prompt's by a scorer, from 0 for the worst on; -1 where none looked.
        reference_logps: [M] log P of each text by the starting student, as `sums`; None unless needed.
        similarity: [M] score of each text against its prompt's reference (Eq. 6), a constant; None unless needed.
    """

    sums: Tensor
    lengths: Tensor
    group: Tensor
    groups: int
    candidate: Tensor
    chosen: Tensor
    better: Tensor
    worse: Tensor
    quality: Tensor
    reference_logps: Tensor | None = None
    similarity: Tensor | None = None

    def total(self, values: Tensor, owner: Tensor) -> Tensor:
        """[G] sums of values [K] over the prompts `owner` [K] that they belong to."""
        return self.sums.new_zeros(self.groups).index_add(0, owner, values.to(self.sums.dtype))

    def average(self, values: Tensor, owner: Tensor) -> Tensor:
        """[G] means of values [K] over the prompts that they belong to; 0 for one without any."""
        return self.total(values, owner) / owner.bincount(minlength=self.groups).clamp(min=1)


def needed(values: Tensor | None, name: str) -> Tensor:
    """What was measured of the texts.

    Raises:
        TrainingError: the objective's `needs` don't name it.
    """
    if values is None:
        raise TrainingError(f"{name} was not measured", fix=f"let the objective's `needs` name {name}")
    return values


@dataclass(frozen=True, slots=True)
class ObjectiveOut:
    """What an objective makes of the texts of G prompts.

    Attributes:
        losses: [G]; the loss of a batch is their sum over the sum of the prompts' weights.
        active: [G] bool; where false, loss and gradient are exactly zero.
        metrics: name -> [G], without gradient; not a number where a metric doesn't apply to a prompt.
    """

    losses: Tensor
    active: Tensor
    metrics: dict[str, Tensor]


class Objective(ObjectiveSection):
    """An objective on the log-probabilities of texts."""

    @abstractmethod
    def loss(self, texts: Texts) -> ObjectiveOut:
        """One loss a prompt."""

    def weight(self, lengths: Sequence[int]) -> float:
        """A prompt's share of the batch loss's denominator, from the tokens of its texts: every prompt counts once."""
        return 1.0
