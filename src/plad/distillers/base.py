"""Objectives that compare the student's predictions with the teacher's: what a config says of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from plad.config.base import PositiveInt
from plad.config.objectives import LogitNeeds, Needs, ObjectiveSection, TextNeeds
from plad.errors import ConfigError
from plad.objectives.base import Objective

if TYPE_CHECKING:
    from torch import nn

    from plad.distillers.logits.compare import Teacher
    from plad.distillers.logits.losses import GroupLoss
    from plad.distillers.samples.rollouts import StudentSampling, TextSource

Device = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps"]


class LogitObjective(ObjectiveSection):
    """What objectives on the teacher's logits share: teacher and student must have one vocabulary."""

    unnamed: ClassVar[frozenset[str]] = frozenset({"type", "teacher_dtype", "teacher_device"})

    teacher_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type the teacher is kept in while the student is trained; auto: `teacher.dtype`."
    )
    teacher_device: Device = Field(
        default="auto", description="Device of the teacher while the student is trained; auto: the student's."
    )

    @property
    @abstractmethod
    def texts(self) -> TextNeeds:
        """The texts that are trained on."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(logits=LogitNeeds(self.teacher_dtype, self.teacher_device, self.texts))

    @abstractmethod
    def bind(self, student: nn.Module, teacher: Teacher) -> GroupLoss:
        """The loss of a student's states beside a teacher's predictions of the same tokens."""

    def source(self, sampling: StudentSampling) -> TextSource | None:
        """What every step trains on; None for the groups themselves."""
        texts = self.texts
        if not texts.share:
            return None
        from plad.distillers.samples.rollouts import MixedTexts

        sampler = None if texts.temperature is None else sampling.sampler(texts.temperature)
        return MixedTexts(texts.share, texts.both, sampling.seed, sampler)


def trainable_objective(section: ObjectiveSection) -> Objective | LogitObjective:
    """The objective, if training can take it.

    Raises:
        ConfigError: its class says what it needs, but not what it minimises.
    """
    if isinstance(section, LogitObjective) or (isinstance(section, Objective) and section.needs.logits is None):
        return section
    raise ConfigError(
        f"objective {section.tag()} can't be trained with",
        where=type(section).__module__,
        fix="derive its class from plad.objectives.base.Objective, or from plad.distillers.base.LogitObjective",
    )


class StorableObjective(LogitObjective):
    """An objective on texts that are known before training, so that the teacher's logits can be stored."""

    temperature: float = Field(
        default=1.0, gt=0, description="Of both softmaxes; the divergence is multiplied by its square. Papers: 1."
    )
    teacher_logits: Literal["live", "cached"] = Field(
        default="live",
        description="live: the teacher is in memory and scores every batch; cached: it scores every text once, its "
        "`top_k` likeliest tokens are kept on disk, all others as one.",
    )
    top_k: PositiveInt = Field(default=128, description="Tokens a position that `teacher_logits: cached` keeps.")

    @property
    def needs(self) -> Needs:
        """The teacher's logits, live or stored."""
        top_k = self.top_k if self.teacher_logits == "cached" else None
        return Needs(logits=LogitNeeds(self.teacher_dtype, self.teacher_device, self.texts, top_k, self.temperature))
