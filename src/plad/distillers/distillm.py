"""DistiLLM."""

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


class DistillmObjective(LogitObjective):
    """DistiLLM: skew KL divergence, on student's samples in a share of steps."""

    type: Literal["distillm"] = "distillm"
    divergence: Literal["skl", "srkl"] = Field(default="skl", description="Skew KL, or skew reverse KL.")
    skew: float = Field(default=0.1, ge=0, lt=1, description="Share of the first in the mixture. Paper: 0.1.")
    student_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the steps on student samples. Paper: raised from 0 while the validation loss rises.",
    )
    student_samples: Literal["fresh", "cached"] = Field(
        default="cached",
        description="cached: the fine-tuned student's answers of the generate stage, off policy as the paper's replay; "
        "fresh: sampled at every such step.",
    )
    sampling_temperature: float = Field(default=1.0, gt=0, description="Temperature of fresh student samples.")

    @property
    def texts(self) -> TextNeeds:
        """Student samples, fresh or not, in a share of the steps, the teacher's texts in the others."""
        share = self.student_share
        if self.student_samples == "cached":
            return TextNeeds(teacher=share < 1, student=share > 0, share=share)
        return TextNeeds(teacher=share < 1, share=share, temperature=self.sampling_temperature)

    def describe(self) -> str:
        """The divergence and its mixture."""
        divergence = "skew KL" if self.divergence == "skl" else "skew reverse KL"
        return f"DistiLLM: {divergence}, skew {self.skew:g}"

    def bind(self, student: nn.Module, teacher: Teacher) -> GroupLoss:
        """The same divergence on either model's texts."""
        from plad.distillers.logits.divergences import skew_kl, skew_reverse_kl
        from plad.distillers.logits.losses import DivergenceLoss, Share

        share = Share(partial(skew_kl if self.divergence == "skl" else skew_reverse_kl, skew=self.skew))
        return DivergenceLoss(student, teacher, share, share)
