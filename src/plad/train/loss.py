"""From what the core measured of groups to the tensors that an objective takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from plad.config.objectives import Needs, ObjectiveSection
from plad.distillers.base import trainable_objective
from plad.distillers.logits.compare import Teacher
from plad.distillers.logits.losses import GroupLoss
from plad.errors import DataError
from plad.objectives.base import Objective, ObjectiveOut, Texts
from plad.objectives.similarity import similarity
from plad.scoring.layout import Group
from plad.scoring.score import Scores

REFERENCE = "reference_logp"
"""Measured value: log P of a text under the starting student, in nats."""
SIMILARITY = "similarity"
"""Measured value: the score of a text against its prompt's reference, by the starting student's states."""
QUALITY = "quality"
"""Measured value: a scorer's judgement of a text, in its own unit; higher is better."""


def loss_of(objective: ObjectiveSection, student: nn.Module, teacher: Teacher | None = None) -> GroupLoss:
    """What training minimises.

    Args:
        student: the model that is trained.
        teacher: predicts the same tokens, for an objective on logits.
    """
    trained = trainable_objective(objective)
    if isinstance(trained, Objective):
        return TextLoss(trained)
    assert teacher is not None
    return trained.bind(student, teacher)


@dataclass(frozen=True, slots=True)
class TextLoss:
    """An objective on texts, given scores of groups."""

    objective: Objective

    @property
    def states(self) -> bool:
        """For a similarity of the student as it is."""
        needs = self.objective.needs
        return needs.similarity is not None and needs.similarity.live

    @property
    def logits(self) -> bool:
        """For log-probabilities."""
        return True

    def weight(self, group: Group) -> float:
        """The group's share of the batch loss's denominator."""
        return self.objective.weight([len(text) for text in group.completions])

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of the groups behind `scores`."""
        return self.objective.loss(texts_of(scores, self.objective.needs))


def texts_of(scores: Scores, needs: Needs) -> Texts:
    """The texts of the groups behind `scores`, with what an objective needs of them.

    Raises:
        DataError: a group has no pair of texts where pairs are needed, or a value that is needed was not measured.
    """
    groups, device = scores.groups, scores.logps.device
    starts = [0, *accumulate(scores.sizes)]
    if needs.pairs and (alone := [g.id for g in groups if not g.preferences]):
        raise DataError("there is no pair of a chosen and a rejected text", where=alone[0])
    pairs = [(start + i, start + j) for g, start in zip(groups, starts, strict=False) for i, j in g.preferences]
    better, worse = torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 2).unbind(1)
    of_similarity = needs.similarity
    if of_similarity is None:
        alike = None
    elif of_similarity.live:
        alike = live_similarity(scores, of_similarity.spans)
    else:
        alike = _measured(scores, SIMILARITY)

    def flags(counts: Callable[[Group], int]) -> Tensor:
        """[M] true for the first texts of each group."""
        return torch.tensor([i < counts(g) for g in groups for i in range(len(g.completions))], device=device)

    return Texts(
        sums=scores.sums(),
        lengths=scores.lengths,
        group=torch.tensor([i for i, size in enumerate(scores.sizes) for _ in range(size)], device=device),
        groups=len(groups),
        candidate=flags(lambda g: g.candidates),
        chosen=flags(lambda g: g.chosen),
        better=better,
        worse=worse,
        quality=torch.tensor([place for g in groups for place in _places(g)], device=device),
        reference_logps=_measured(scores, REFERENCE) if needs.reference_logps else None,
        similarity=alike,
    )


def _places(group: Group) -> list[int]:
    """Place of each completion by a scorer's judgement, from 0 for the worst on; -1 where there is none."""
    quality = group.values.get(QUALITY)
    if quality is None:
        return [-1] * len(group.completions)
    place = {value: i for i, value in enumerate(sorted(set(quality)))}
    return [*(place[value] for value in quality), *[-1] * group.context]


def _measured(scores: Scores, name: str) -> Tensor:
    """[M] what was measured of each completion; 0 for one that is only read."""
    values: list[float] = []
    for group in scores.groups:
        if name not in group.values:
            raise DataError(f"{name} was not measured", where=group.id, fix="measure it before training")
        values += [*group.values[name], *[0.0] * group.context]
    return torch.tensor(values, dtype=scores.logps.dtype, device=scores.logps.device)


@torch.no_grad()
def live_similarity(scores: Scores, spans: Sequence[int]) -> Tensor:
    """[M] score of each completion against its group's context by the states in `scores`; 0 for the context itself.

    Raises:
        DataError: there are no states, or a group doesn't hold one reference.
    """
    if scores.states is None or any(group.context != 1 for group in scores.groups):
        raise DataError("a live score needs states, and one reference in every group")
    ends = torch.tensor(scores.sizes, device=scores.logps.device)
    reference = (ends.cumsum(0) - 1).repeat_interleave(ends)
    every = torch.arange(len(scores.lengths), device=reference.device)
    alike = similarity(scores.states, scores.lengths, every, reference, spans)
    return torch.where(every == reference, 0.0, alike)
