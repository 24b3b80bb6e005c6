"""The paper's own losses: ranking and margin calibration of sequence likelihoods."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from plad.config.base import PositiveInt
from plad.config.objectives import Needs, SimilarityNeeds
from plad.objectives.base import needed
from plad.objectives.pairs import AnchoredObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


def rank(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Ranking calibration: the chosen text must be likelier than the rejected one by a margin.

        L_rank = max(0, beta - log P(y+|x) + log P(y-|x))

    Args:
        chosen: [B] log P(y+|x) in nats, of the whole text or a token.
        rejected: [B] log P(y-|x), in the same unit.
        beta: the margin, in the same unit.

    Returns:
        [B] losses. Where the margin is met, loss and gradient are exactly zero.

    Source: PLaD (arXiv 2406.02886), Eq. 4.
    """
    return (beta - chosen + rejected).relu()


def margin(chosen: Tensor, rejected: Tensor, chosen_score: Tensor, rejected_score: Tensor, *, beta: float) -> Tensor:
    """Margin calibration: the chosen text must be likelier by as much as it resembles the reference more.

        L_margin = max(0, beta (s(y+; y) - s(y-; y)) - log P(y+|x) + log P(y-|x))

    Args:
        chosen: [B] log P(y+|x) in nats, of the whole text or a token.
        rejected: [B] log P(y-|x), in the same unit.
        chosen_score, rejected_score: [B] s(.; y), a constant of the loss.
        beta: nats a unit of score.

    Returns:
        [B] losses. Where the rejected text resembles the reference more, it may be the likelier one at no cost.

    Source: PLaD (arXiv 2406.02886), Eq. 5.
    """
    return (beta * (chosen_score - rejected_score) - chosen + rejected).relu()


class RankObjective(AnchoredObjective):
    """Ranking calibration, Eq. 4."""

    type: Literal["rank"] = "rank"
    beta: float = Field(
        default=1.0, ge=0, description="Margin in nats (of the whole text for sum, of a token for mean). Paper: 1.0."
    )

    def formula(self) -> str:
        """The margin."""
        return f"ranking calibration (Eq. 4): beta {self.beta:g}"

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 4 of every pair."""
        return rank(pairs.chosen, pairs.rejected, beta=self.beta), {}


class MarginObjective(AnchoredObjective):
    """Margin calibration, Eq. 5."""

    type: Literal["margin"] = "margin"
    beta: float = Field(
        default=1.0,
        ge=0,
        description="Nats (of the whole text for sum, of a token for mean) a unit of similarity. Paper: 1.0.",
    )
    scores: Literal["frozen", "live"] = Field(
        default="frozen",
        description="Similarity to the reference by the starting student's states, measured once and kept with the "
        "pairs, or by the student's as it is at every step.",
    )
    spans: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4, 8), min_length=1, description="Lengths of the spans of states that are compared (Eq. 6-8)."
    )
    reference: Literal["target", "teacher"] = Field(
        default="target",
        description="What candidates are compared with. target: the prompt's target, or another answer of the teacher "
        "where there is none; teacher: always another answer of the teacher (generate.samples above 1), the default "
        "in `evaluate.baselines`.",
    )

    def as_baseline(self) -> Self:
        """Compared with another answer of the teacher, as other methods see no target, unless `reference` is given."""
        return self if "reference" in self.model_fields_set else self.model_copy(update={"reference": "teacher"})

    @property
    def needs(self) -> Needs:
        """Similarity of every text to a reference."""
        similarity = SimilarityNeeds(self.spans, self.scores == "live", self.reference)
        return replace(super().needs, similarity=similarity, teacher_answers=1 + (self.reference == "teacher"))

    def formula(self) -> str:
        """The margin and where its scores are from."""
        spans = ", ".join(map(str, self.spans))
        return f"margin calibration (Eq. 5): beta {self.beta:g}, {self.scores} scores over spans of {spans}"

    def of_pairs(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 of every pair; the required margin is a metric."""
        similarity = needed(pairs.texts.similarity, "similarity")
        better, worse = similarity[pairs.better], similarity[pairs.worse]
        losses = margin(pairs.chosen, pairs.rejected, better, worse, beta=self.beta)
        return losses, {"required_margin": self.beta * (better - worse)}
