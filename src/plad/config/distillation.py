"""Objectives that compare the student's predictions with the teacher's: the baselines that need its logits."""

from typing import Literal

from pydantic import Field, model_validator

from plad.config.base import PositiveInt, Section

Device = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps"]


class LogitObjective(Section):
    """What objectives on the teacher's logits share: teacher and student must have one vocabulary."""

    teacher_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type the teacher is kept in while the student is trained; auto: `teacher.dtype`."
    )
    teacher_device: Device = Field(
        default="auto", description="Device of the teacher while the student is trained; auto: the student's."
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

    @property
    def samples(self) -> bool:
        """Whether the student samples while it is trained."""
        return self.divergence != "kl" and self.student_samples == "fresh"

    @model_validator(mode="after")
    def _stored_texts_are_known(self) -> "FDistillObjective":
        if self.teacher_logits == "cached" and self.samples:
            raise ValueError("teacher_logits cached knows no fresh samples: student_samples: cached, or divergence: kl")
        return self


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
