"""Objectives on pairs of texts of one prompt, chosen and rejected: what they share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from plad.config.objectives import Needs
from plad.objectives.base import Objective, ObjectiveOut, Texts, needed
from plad.objectives.sft import sft

if TYPE_CHECKING:
    from torch import Tensor

Normalization = Literal["sum", "mean"]
NORMALIZATION = "log P of a text: the sum over its tokens, or their mean."


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs of texts, with log P in the unit of the objective: of the whole text (sum), or a token (mean).

    Attributes:
        texts: the M texts.
        logps: [M] log P of each text.
        better, worse: [P] indices of the texts of each pair.
        mean: the unit.
    """

    texts: Texts
    logps: Tensor
    better: Tensor
    worse: Tensor
    mean: bool

    @property
    def chosen(self) -> Tensor:
        """[P] log P of the better texts."""
        return self.logps[self.better]

    @property
    def rejected(self) -> Tensor:
        """[P] log P of the worse texts."""
        return self.logps[self.worse]

    def reference_logps(self) -> Tensor:
        """[M] log P of each text by the starting student."""
        sums = needed(self.texts.reference_logps, "reference_logps")
        return sums / self.texts.lengths.clamp(min=1) if self.mean else sums


class PairObjective(Objective):
    """A loss of pairs, with an optional cross-entropy of the chosen texts and an optional anchor of the rejected ones.

    A prompt's loss is the mean over its pairs; a pair with an empty text has no loss but its cross-entropy.

    Attributes:
        summed: a prompt's loss is the sum over its pairs.
        imitates: which text the cross-entropy is of, in words.
    """

    summed: ClassVar[bool] = False
    imitates: ClassVar[str] = "chosen"

    length_normalization: Normalization = Field(default="mean", description=NORMALIZATION)
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the mean token cross-entropy of the chosen text beside the loss; 0 is the loss alone.",
    )
    sft_epochs: float = Field(
        default=0.0,
        ge=0,
        description="Passes of cross-entropy on the chosen texts (SeqKD) before the loss is first applied; 0 is none.",
    )
    rejected_end: bool = Field(
        default=True, description="Whether the end-of-sequence token of a rejected text enters the loss."
    )

    @abstractmethod
    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """[P] losses, and further metrics [P]."""

    @abstractmethod
    def formula(self) -> str:
        """The loss of a pair and its settings, in words."""

    @property
    def needs(self) -> Needs:
        """Pairs."""
        return Needs(pairs=True, rejected_end=self.rejected_end, warm_up=self.sft_epochs)

    def warmed_up(self) -> Self:
        """Without passes of cross-entropy."""
        return self.model_copy(update={"sft_epochs": 0.0})

    def describe(self) -> str:
        """The loss of a pair, the unit of log P, and what stands beside the loss."""
        parts = [self.formula(), f"log-likelihood of a text as the {self.length_normalization} over its tokens"]
        if self.sft_weight:
            parts.append(f"plus {self.sft_weight:g} x cross-entropy of the {self.imitates} text")
        if self.sft_epochs:
            parts.append(f"after {self.sft_epochs:g} passes of cross-entropy on the chosen texts")
        if not self.rejected_end:
            parts.append("rejected texts without their end token")
        return ", ".join(parts)

    def ordered(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """[P] indices of the better and of the worse text of each pair."""
        return texts.better, texts.worse

    def imitated(self, texts: Texts, better: Tensor) -> Tensor:
        """The texts whose cross-entropy the loss may hold: of every pair the better one."""
        return better

    def beside(self, pairs: Pairs) -> tuple[float, dict[str, Tensor]]:
        """The weight of a further loss of every pair, and that loss [P] by its name; nothing by default."""
        return 0.0, {}

    def loss(self, texts: Texts) -> ObjectiveOut:
        """The loss of every prompt's pairs, and what stands beside it."""
        means = texts.sums / texts.lengths.clamp(min=1)
        mean = self.length_normalization == "mean"
        better, worse = self.ordered(texts)
        pairs = Pairs(texts, means if mean else texts.sums, better, worse, mean)
        owner = texts.group[better]
        complete = (texts.lengths[better] > 0) & (texts.lengths[worse] > 0)
        losses, metrics = self.of_pairs(pairs)
        losses = losses.where(complete, 0.0)
        out = texts.total(losses, owner) if self.summed else texts.average(losses, owner)
        metrics |= {
            "chosen_logp": means[better],
            "rejected_logp": means[worse],
            "margin": pairs.chosen - pairs.rejected,
            "accuracy": pairs.chosen > pairs.rejected,
            "active": losses != 0,
        }
        weight, further = self.beside(pairs)
        for name, values in further.items():
            metrics[name] = values.where(complete, 0.0)
            out = out + weight * texts.average(metrics[name], owner)
        active = out.detach() != 0  # a loss that is not a number counts as active
        if self.sft_weight:
            imitated = self.imitated(texts, better)
            out = out + self.sft_weight * texts.average(sft(means[imitated]), texts.group[imitated])
            active = active | True
        return ObjectiveOut(out, active, {name: texts.average(v.detach(), owner) for name, v in metrics.items()})


class TiedObjective(PairObjective):
    """An objective that compares every text with what the starting student, whose log P is kept, thought of it."""

    length_normalization: Normalization = Field(default="sum", description=NORMALIZATION)
    beta: float = Field(default=0.1, gt=0, description="Strength of the tie to the starting student.")

    @property
    def needs(self) -> Needs:
        """The starting student's log-probabilities."""
        return replace(super().needs, reference_logps=True)


def anchor(logps: Tensor, reference: Tensor) -> Tensor:
    """How far the student has moved from where it started, on texts that it sampled there.

        L_anchor = 1/2 (log P(y|x) - log P_0(y|x))^2

    On texts drawn from P_0 its mean estimates KL(P_0 || P). Beside a hinge, whose slope is 1, it has the same slope
    where the text has moved by 1 / weight: no further is it pushed.

    Args:
        logps: [B] log P(y|x) in nats, of the whole text or a token.
        reference: [B] log P_0(y|x) by the starting student, in the same unit.

    Returns:
        [B] losses, in squared nats.

    Source: the estimator k2 of Schulman, "Approximating KL divergence" (2020).
    """
    return 0.5 * (logps - reference) ** 2


class AnchoredObjective(PairObjective):
    """An objective that may be tied to the starting student."""

    anchor_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of (log P - log P of the starting student)^2 / 2 of the rejected text, which keeps it from "
        "being pushed down by more than about 1 / anchor_weight nats; 0 is the loss alone.",
    )

    @property
    def needs(self) -> Needs:
        """The starting student where there is an anchor."""
        return replace(super().needs, reference_logps=self.anchor_weight > 0)

    def describe(self) -> str:
        """With the anchor."""
        if not self.anchor_weight:
            return super().describe()
        return f"{super().describe()}, plus {self.anchor_weight:g} x squared distance from the starting student, halved"

    def beside(self, pairs: Pairs) -> tuple[float, dict[str, Tensor]]:
        """The anchor of the rejected texts."""
        if not self.anchor_weight:
            return super().beside(pairs)
        return self.anchor_weight, {"anchor": anchor(pairs.rejected, pairs.reference_logps()[pairs.worse])}
