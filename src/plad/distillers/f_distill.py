"""f-distill."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from plad.config.objectives import TextNeeds
from plad.distillers.base import StorableObjective

if TYPE_CHECKING:
    from torch import nn

    from plad.distillers.logits.compare import Teacher
    from plad.distillers.logits.losses import GroupLoss, Share

_DIVERGENCES = {
    "kl": "forward KL on the teacher's texts",
    "rkl": "reverse KL on the student's texts",
    "js": "Jensen-Shannon divergence on both models' texts",
    "tvd": "total variation distance on both models' texts",
}


class FDistillObjective(StorableObjective):
    """f-distill: a divergence at every token of the teacher's texts, the student's, or both."""

    type: Literal["f_distill"] = "f_distill"
    divergence: Literal["kl", "rkl", "js", "tvd"] = Field(
        default="js",
        description="kl: on teacher's texts; rkl: on student's; js and tvd: on both.",
    )
    beta: float = Field(default=0.5, gt=0, lt=1, description="js: the student's share. Paper: 0.5.")
    student_samples: Literal["fresh", "cached"] = Field(
        default="fresh",
        description="fresh: sampled by the student as it is at every step, as in the paper; cached: the fine-tuned "
        "student's answers of the generate stage.",
    )
    sampling_temperature: float = Field(default=1.0, gt=0, description="Temperature of fresh student samples.")

    @model_validator(mode="after")
    def _stored_texts_are_known(self) -> FDistillObjective:
        if self.teacher_logits == "cached" and self.texts.temperature is not None:
            raise ValueError("teacher_logits cached knows no fresh samples: student_samples: cached, or divergence: kl")
        return self

    @property
    def texts(self) -> TextNeeds:
        """Those of the models that the divergence is taken on."""
        if self.divergence == "kl":
            return TextNeeds()
        both = self.divergence != "rkl"
        if self.student_samples == "cached":
            return TextNeeds(teacher=both, student=True)
        return TextNeeds(teacher=both, share=1.0, both=both, temperature=self.sampling_temperature)

    def describe(self) -> str:
        """The divergence and its texts."""
        return f"f-distill: {_DIVERGENCES[self.divergence]} ({self.student_samples} student samples)"

    def bind(self, student: nn.Module, teacher: Teacher) -> GroupLoss:
        """The divergence on both kinds of text; the square of the temperature keeps the gradient's size."""
        from plad.distillers.logits.losses import DivergenceLoss

        return DivergenceLoss(student, teacher, *self._shares(), self.temperature, self.temperature**2)

    def _shares(self) -> tuple[Share | None, Share | None]:
        """What is taken on the teacher's texts, and on the student's.

        Source: f-distill (arXiv 2307.15190), section 2.
        """
        from plad.distillers.logits import divergences
        from plad.distillers.logits.losses import Share

        match self.divergence:
            case "kl":
                return Share(divergences.forward_kl), None
            case "rkl":
                return None, Share(divergences.reverse_kl)
            case "js":
                of_teacher = partial(divergences.js_of_teacher, beta=self.beta)
                of_student = partial(divergences.js_of_student, beta=self.beta)
                return Share(of_teacher, 1 - self.beta), Share(of_student, self.beta)
            case "tvd":
                return Share(divergences.total_variation, 0.5), Share(divergences.total_variation, 0.5)
