"""Generalised distillation (GKD)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from plad.config.objectives import TextNeeds
from plad.distillers.base import LogitObjective

if TYPE_CHECKING:
    from torch import nn

    from plad.distillers.logits.compare import Teacher
    from plad.distillers.logits.losses import GroupLoss


class GkdObjective(LogitObjective):
    """Generalised distillation (GKD): a Jensen-Shannon divergence, on the student's own samples in a share of steps."""

    type: Literal["gkd"] = "gkd"
    beta: float = Field(
        default=0.5, ge=0, le=1, description="The teacher's share; 0 is forward KL, 1 is reverse KL. TRL: 0.5."
    )
    student_share: float = Field(
        default=0.5, ge=0, le=1, description="Share of the steps on fresh student samples (lambda). TRL: 0.5."
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Of both softmaxes; the divergence isn't scaled by it. Paper: 1."
    )
    sampling_temperature: float = Field(default=1.0, gt=0, description="Of the student's samples. Paper: 1.")

    @property
    def texts(self) -> TextNeeds:
        """Fresh samples in a share of the steps, the teacher's texts in the others."""
        share = self.student_share
        return TextNeeds(teacher=share < 1, share=share, temperature=self.sampling_temperature)

    def describe(self) -> str:
        """The divergence and how often it is on policy."""
        return (
            f"generalised distillation (GKD): Jensen-Shannon divergence with beta {self.beta:g}, on the "
            f"student's own samples in {self.student_share:.0%} of the steps"
        )

    def bind(self, student: nn.Module, teacher: Teacher) -> GroupLoss:
        """The same divergence on either model's texts."""
        from plad.distillers.logits.divergences import generalized_jsd
        from plad.distillers.logits.losses import DivergenceLoss, Share

        share = Share(partial(generalized_jsd, beta=self.beta))
        return DivergenceLoss(student, teacher, share, share, self.temperature)
