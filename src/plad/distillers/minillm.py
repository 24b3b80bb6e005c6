"""MiniLLM."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from plad.config.base import PositiveInt
from plad.config.objectives import DocumentNeeds, Needs, TextNeeds
from plad.distillers.base import LogitObjective

if TYPE_CHECKING:
    from torch import nn

    from plad.distillers.logits.compare import Teacher
    from plad.distillers.logits.losses import GroupLoss
    from plad.distillers.logits.policy_gradient import Rewarding
    from plad.distillers.samples.rollouts import StudentSampling, TextSource


class MiniLlmObjective(LogitObjective):
    """MiniLLM: reverse KL of whole texts by policy gradient, on samples of a mixture of student and teacher."""

    type: Literal["minillm"] = "minillm"
    teacher_mix: float = Field(
        default=0.2, ge=0, lt=1, description="Teacher's share of the distribution that is sampled. Paper: 0.2."
    )
    single_step: float = Field(
        default=1.0, ge=0, description="Weight of the exact reverse KL of every next token. Paper: 1."
    )
    length_normalization: bool = Field(
        default=True, description="Divide a token's return by the number of tokens it sums. Paper: true."
    )
    discount: float = Field(
        default=1.0, gt=0, le=1, description="Of later rewards, a token. Paper: none; its code: 0.95."
    )
    own_reward: bool = Field(
        default=False, description="Let a token's return hold its own reward. Paper: false; its code: true."
    )
    reward_scaling: float = Field(
        default=0.5, gt=0, description="Nats of log p / q that are one reward. Its code: 0.5."
    )
    reward_clip: float | None = Field(default=100.0, gt=0, description="Largest absolute reward. Its code: 100.")
    whiten: bool = Field(default=True, description="Bring a batch's returns to mean 0, variance 1. Its code: true.")
    ppo_clip: float = Field(default=0.2, gt=0, lt=1, description="By how much a ratio may leave 1. Paper: 0.2.")
    ppo_epochs: PositiveInt = Field(default=4, description="Passes over every set of samples. Its code: 4.")
    rollouts: PositiveInt = Field(
        default=256, description="Prompts sampled at a time; fewer where the steps would not suffice. Its code: 256."
    )
    pretraining: str | None = Field(
        default=None, description="Plain text, or JSONL with `text`: cross-entropy on it is added. Default: none."
    )
    pretraining_weight: float = Field(default=1.0, gt=0, description="Weight of that cross-entropy. Its code: 1.")
    pretraining_tokens: PositiveInt = Field(default=256, description="Tokens of one stretch of that text.")

    @property
    def texts(self) -> TextNeeds:
        """Prompts alone: every text is sampled."""
        return TextNeeds(teacher=False)

    @property
    def needs(self) -> Needs:
        """Plain text beside the logits; no dropout.

        The ratio of a rollout's likelihood to the one it was sampled with is 1 until the student has moved.
        """
        documents = None if self.pretraining is None else DocumentNeeds(self.pretraining, self.pretraining_tokens)
        mixed = "it samples a mixture of teacher and student; teacher_mix: 0 samples the student alone"
        decoder_only = mixed if self.teacher_mix else None
        return replace(super().needs, documents=documents, dropout=False, decoder_only=decoder_only)

    def describe(self) -> str:
        """The mixture that is sampled."""
        return f"MiniLLM: reverse KL by policy gradient, {self.teacher_mix:.0%} of the teacher mixed in"

    def bind(self, student: nn.Module, teacher: Teacher) -> GroupLoss:
        """The exact part and the policy gradient."""
        from plad.distillers.logits.losses import MiniLlmLoss

        return MiniLlmLoss(student, teacher, self.ppo_clip, self.single_step)

    def rewarding(self) -> Rewarding:
        """From log-probabilities to advantages."""
        from plad.distillers.logits.policy_gradient import Rewarding

        return Rewarding(
            scaling=self.reward_scaling,
            clip=self.reward_clip,
            mix=self.teacher_mix,
            discount=self.discount,
            own_reward=self.own_reward,
            normalize=self.length_normalization,
            whiten=self.whiten,
        )

    def source(self, sampling: StudentSampling) -> TextSource:
        """Rollouts, sampled for several steps at a time."""
        from plad.distillers.samples.rollouts import rollouts_of

        return rollouts_of(sampling, self.rewarding(), self.rollouts, self.ppo_epochs, self.pretraining_weight)
