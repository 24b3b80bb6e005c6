"""Objectives on all candidate texts of one prompt, ordered by a scorer's quality or by who wrote them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from plad.objectives.pairwise import Pairwise, Texts
from plad.objectives.preference import lambda_weights, lipo, rrhf
from plad.scoring.layout import Group
from plad.scoring.score import Scores

QUALITY = "quality"
"""Measured value: a scorer's judgement of a text, in its own unit; higher is better."""


def ordered(group: Group) -> Sequence[tuple[int, int]]:
    """(better, worse) for every two texts whose order is known: by quality where there is one, else by preference."""
    quality = group.values.get(QUALITY)
    if quality is None:
        return group.preferences
    places = range(group.candidates)
    return [(i, j) for i in places for j in places if quality[i] > quality[j]]


def gains(group: Group) -> list[float]:
    """How often each candidate is better than another one, from 0 to 1; an unknown order counts one half.

    Source: LiPO (Liu et al., arXiv 2402.01878): psi, the mean probability of a win.
    """
    pairs = set(ordered(group))
    others = group.candidates - 1
    return [
        sum(0.5 * (1 + ((i, j) in pairs) - ((j, i) in pairs)) for j in range(others + 1) if j != i) / max(others, 1)
        for i in range(others + 1)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RrhfLoss(Pairwise):
    """Ranking responses: a hinge without margin over all ordered pairs, beside cross-entropy of the best text."""

    summed: ClassVar[bool] = True

    def ordered(self, group: Group) -> Sequence[tuple[int, int]]:
        """By quality or preference."""
        return ordered(group)

    def imitated(self, group: Group) -> Sequence[int]:
        """The best texts: those of highest quality, or all that are chosen."""
        quality = group.values.get(QUALITY)
        if quality is None:
            return range(group.chosen)
        return [i for i, value in enumerate(quality) if value == max(quality)]

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """RRHF of every ordered pair."""
        return rrhf(texts.chosen, texts.rejected), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class LipoLoss(Pairwise):
    """Listwise preference optimisation with LambdaRank weights.

    Attributes:
        beta: strength of the tie to the starting student.
    """

    summed: ClassVar[bool] = True
    beta: float

    def ordered(self, group: Group) -> Sequence[tuple[int, int]]:
        """By quality or preference."""
        return ordered(group)

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """LiPO of every ordered pair; its weight is a metric."""
        rewards = self.beta * (texts.logps - texts.reference())
        weights = _weights(texts.scores, rewards.detach(), texts.better, texts.worse)
        return lipo(rewards[texts.better], rewards[texts.worse], weights), {"lambda_weight": weights}


def _weights(scores: Scores, rewards: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """[P] LambdaRank weights of the pairs, with every text's place among its group's candidates by `rewards` [M]."""
    psi: list[float] = []
    owner: list[int] = []
    for index, group in enumerate(scores.groups):
        psi += [*gains(group), *[0.0] * group.context]
        owner += [*[index] * group.candidates, *[-1] * group.context]
    gain = torch.tensor(psi, dtype=rewards.dtype, device=rewards.device)
    group_of = torch.tensor(owner, device=rewards.device)
    place = torch.arange(len(rewards), device=rewards.device)
    # above[i, j]: j stands before i in the student's order; of equal texts the first
    above = (rewards > rewards[:, None]) | ((rewards == rewards[:, None]) & (place < place[:, None]))
    rank = (1 + (above & (group_of == group_of[:, None])).sum(1)).to(rewards.dtype)
    return lambda_weights(gain[better], gain[worse], rank[better], rank[worse])
