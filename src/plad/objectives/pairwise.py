"""Objectives on pairs of texts of one prompt, chosen and rejected."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from plad.errors import DataError
from plad.objectives.calibration import anchor, margin, rank
from plad.objectives.objective import ObjectiveOut
from plad.objectives.preference import dpo, simpo, slic
from plad.objectives.sft import sft
from plad.objectives.similarity import SPANS, similarity
from plad.scoring.layout import Group
from plad.scoring.score import Scores

REFERENCE = "reference_logp"
"""Measured value: log P of a text under the starting student, in nats."""
SIMILARITY = "similarity"
"""Measured value: the score of a text against its prompt's reference, by the starting student's states."""


@dataclass(frozen=True, slots=True)
class Texts:
    """M texts and the P pairs they make.

    Attributes:
        scores: what the core measured.
        logps: [M] log P of each text, in the unit of the objective: the sum over its tokens or their mean.
        normalize: brings [M] sums over tokens into that unit.
        better, worse: [P] indices of the texts of each pair.
    """

    scores: Scores
    logps: Tensor
    normalize: Callable[[Tensor], Tensor]
    better: Tensor
    worse: Tensor

    @property
    def chosen(self) -> Tensor:
        """[P] log P of the chosen texts."""
        return self.logps[self.better]

    @property
    def rejected(self) -> Tensor:
        """[P] log P of the rejected texts."""
        return self.logps[self.worse]

    def reference(self) -> Tensor:
        """[M] log P of each text under the starting student, in the unit of `logps`."""
        return self.normalize(measured(self.scores, REFERENCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairwise(ABC):
    """A loss of pairs, with an optional cross-entropy of the chosen texts and an optional anchor of the rejected ones.

    A group's loss is the mean over its pairs; a pair with an empty text has no loss but its cross-entropy.

    Attributes:
        length_normalization: what log P of a text is: the sum over its tokens, or their mean.
        sft_weight: weight of the chosen texts' mean token cross-entropy; 0 is the loss alone.
        anchor_weight: weight of the rejected texts' distance from the starting student; 0 is the loss alone.
    """

    length_normalization: Literal["sum", "mean"]
    sft_weight: float = 0.0
    anchor_weight: float = 0.0
    summed: ClassVar[bool] = False  # a group's loss is the sum over its pairs

    @property
    def states(self) -> bool:
        """Whether it needs the states of the texts beside their log-probabilities."""
        return False

    @property
    def logits(self) -> bool:
        """It needs log-probabilities."""
        return True

    @abstractmethod
    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """[P] losses, and further metrics [P]."""

    def ordered(self, group: Group) -> Sequence[tuple[int, int]]:
        """The group's pairs, (better, worse)."""
        return group.preferences

    def imitated(self, group: Group) -> Sequence[int]:
        """The completions whose cross-entropy the loss may hold: of every pair the better one."""
        return [better for better, _ in self.ordered(group)]

    def weight(self, group: Group) -> float:
        """Every prompt counts once."""
        return 1.0

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of the groups behind `scores`.

        Raises:
            DataError: a group has no chosen or no rejected text, or a value it needs was not measured.
        """
        for group in scores.groups:
            if not group.preferences:
                raise DataError("there is no pair of a chosen and a rejected text", where=group.id)
        means = scores.means()
        lengths = scores.lengths

        def normalize(sums: Tensor) -> Tensor:
            return sums / lengths.clamp(min=1) if self.length_normalization == "mean" else sums

        better, worse, owner = _indices(scores, self.ordered).unbind(1)
        texts = Texts(scores, normalize(scores.sums()), normalize, better, worse)
        complete = (lengths[better] > 0) & (lengths[worse] > 0)
        losses, further = self.of_pairs(texts)
        losses = torch.where(complete, losses, 0.0)

        def total(of_pairs: Tensor, owner: Tensor) -> Tensor:
            return means.new_zeros(len(scores.groups)).index_add(0, owner, of_pairs.to(means.dtype))

        def average(of_pairs: Tensor, owner: Tensor) -> Tensor:
            return total(of_pairs, owner) / torch.bincount(owner, minlength=len(scores.groups)).clamp(min=1)

        further |= {
            "chosen_logp": means[better],
            "rejected_logp": means[worse],
            "margin": texts.chosen - texts.rejected,
            "accuracy": texts.chosen > texts.rejected,
            "active": losses != 0,
        }
        out = total(losses, owner) if self.summed else average(losses, owner)
        if self.anchor_weight:
            away = torch.where(complete, anchor(texts.rejected, texts.reference()[worse]), 0.0)
            further["anchor"] = away
            out = out + self.anchor_weight * average(away, owner)
        metrics = {name: average(value.detach(), owner) for name, value in further.items()}
        active = out.detach() != 0  # a loss that is not a number counts as active
        if self.sft_weight:
            text, owner = _indices(scores, lambda group: [(i, i) for i in self.imitated(group)])[:, 1:].unbind(1)
            out = out + self.sft_weight * average(sft(means[text]), owner)
            active = torch.ones_like(active)
        return ObjectiveOut(out, active, metrics)


def _indices(scores: Scores, pairs_of: Callable[[Group], Sequence[tuple[int, int]]]) -> Tensor:
    """[P, 3]: the two completions of every pair among all, and its group."""
    found: list[tuple[int, int, int]] = []
    start = 0
    for index, group in enumerate(scores.groups):
        found += [(start + better, start + worse, index) for better, worse in pairs_of(group)]
        start += len(group.completions)
    return torch.tensor(found, dtype=torch.long, device=scores.logps.device).view(-1, 3)


def measured(scores: Scores, name: str) -> Tensor:
    """[M] what was measured of each completion; 0 for one that is only read.

    Raises:
        DataError: it was not measured of a group.
    """
    found: list[float] = []
    for group in scores.groups:
        if name not in group.values:
            raise DataError(f"{name} was not measured", where=group.id, fix="measure it before training")
        found += [*group.values[name], *[0.0] * group.context]
    return torch.tensor(found, dtype=scores.logps.dtype, device=scores.logps.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLoss(Pairwise):
    """Ranking calibration, Eq. 4.

    Attributes:
        beta: margin in nats, of the whole text (sum) or a token (mean).
    """

    beta: float

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 4 of every pair."""
        return rank(texts.chosen, texts.rejected, beta=self.beta), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginLoss(Pairwise):
    """Margin calibration, Eq. 5.

    Attributes:
        beta: nats, of the whole text (sum) or a token (mean), a unit of similarity.
        scores: frozen: as measured with the starting student; live: from the student's states as it is now, against the
            one text of the group that is context.
        spans: span lengths of the live score.
    """

    beta: float
    scores: Literal["frozen", "live"] = "frozen"
    spans: tuple[int, ...] = SPANS

    @property
    def states(self) -> bool:
        """The live score is one of states."""
        return self.scores == "live"

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 of every pair; the required margin is a metric."""
        found = live_similarity(texts.scores, self.spans) if self.states else measured(texts.scores, SIMILARITY)
        better, worse = found[texts.better], found[texts.worse]
        losses = margin(texts.chosen, texts.rejected, better, worse, beta=self.beta)
        return losses, {"required_margin": self.beta * (better - worse)}


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
    found = similarity(scores.states, scores.lengths, every, reference, spans)
    return torch.where(every == reference, 0.0, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicLoss(Pairwise):
    """Sequence likelihood calibration.

    Attributes:
        beta: margin in nats, of the whole text (sum) or a token (mean).
        regularization: weight of the chosen text's cross-entropy, in the unit of the hinge.
    """

    beta: float
    regularization: float

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """SLiC of every pair."""
        return slic(texts.chosen, texts.rejected, beta=self.beta, regularization=self.regularization), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoLoss(Pairwise):
    """Direct preference optimisation against the starting student's stored log-probabilities.

    Attributes:
        beta: strength of the tie to the starting student.
    """

    beta: float

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """DPO of every pair; how far the pair's margin has grown is a metric."""
        reference = texts.reference()
        better, worse = reference[texts.better], reference[texts.worse]
        gained = (texts.chosen - texts.rejected).detach() - (better - worse)
        return dpo(texts.chosen, texts.rejected, better, worse, beta=self.beta), {"margin_gained": gained}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpoLoss(Pairwise):
    """Simple preference optimisation.

    Attributes:
        beta: scale of the reward.
        gamma: margin of the reward.
    """

    beta: float
    gamma: float

    def of_pairs(self, texts: Texts) -> tuple[Tensor, dict[str, Tensor]]:
        """SimPO of every pair."""
        return simpo(texts.chosen, texts.rejected, beta=self.beta, gamma=self.gamma), {}
