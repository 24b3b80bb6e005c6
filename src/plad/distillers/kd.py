"""Standard distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from plad.config.objectives import TextNeeds
from plad.distillers.base import StorableObjective

if TYPE_CHECKING:
    from torch import nn

    from plad.distillers.logits.compare import Teacher
    from plad.distillers.logits.losses import GroupLoss


class KdObjective(StorableObjective):
    """Standard distillation: forward KL at every token of given texts, mixed with their cross-entropy."""

    type: Literal["kd"] = "kd"
    ratio: float = Field(
        default=0.5, ge=0, le=1, description="Share of the divergence; the rest is cross-entropy. MiniLLM's code: 0.5."
    )
    text: Literal["auto", "target", "teacher"] = Field(
        default="auto",
        description="target: the data's targets; teacher: the teacher's answers; auto: targets where every prompt has "
        "one.",
    )

    @property
    def texts(self) -> TextNeeds:
        """Targets or the teacher's answers."""
        targets: dict[str, Literal["never", "if_complete", "always"]]
        targets = {"auto": "if_complete", "target": "always", "teacher": "never"}
        return TextNeeds(targets=targets[self.text])

    def as_baseline(self) -> Self:
        """On the teacher's answers, as every other method, unless `text` says otherwise."""
        return self if "text" in self.model_fields_set else self.model_copy(update={"text": "teacher"})

    def describe(self) -> str:
        """The mix."""
        return f"standard distillation: {self.ratio:g} x forward KL, the rest cross-entropy"

    def bind(self, student: nn.Module, teacher: Teacher) -> GroupLoss:
        """Forward KL and cross-entropy; the square of the temperature keeps the gradient's size."""
        from plad.distillers.logits.divergences import forward_kl
        from plad.distillers.logits.losses import DivergenceLoss, Share

        share, scale = Share(forward_kl), self.temperature**2
        return DivergenceLoss(student, teacher, share, None, self.temperature, scale, self.ratio)
