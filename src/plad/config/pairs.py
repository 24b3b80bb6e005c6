"""Sampling answers, and making pairs of them."""

from typing import Literal

from pydantic import Field

from plad.config.base import PositiveInt, Section


class GenerateSection(Section):
    temperature: float = Field(
        default=0.7, ge=0, description="Softmax temperature tau of Eq. 1; 0 is greedy. Paper: 0.7."
    )
    max_new_tokens: PositiveInt = Field(default=64, description="Most tokens of an answer, end of sequence included.")
    samples: PositiveInt = Field(default=1, description="Teacher answers a prompt.")
    student_samples: PositiveInt | None = Field(
        default=None, description="Student answers a prompt. Default: `samples`."
    )
    slots: PositiveInt = Field(default=8, description="Answers sampled at once; bounds the cache.")


class DropRules(Section):
    """Pairs that teach nothing, or the wrong thing."""

    identical: bool = Field(default=True, description="Drop pairs whose two texts are the same.")
    empty: bool = Field(default=True, description="Drop pairs with an empty text.")
    truncated: Literal["both", "teacher"] = Field(
        default="both",
        description="Drop pairs in which either answer was cut off, or only those in which the teacher's was.",
    )


class PairsSection(Section):
    drop: DropRules = DropRules()
