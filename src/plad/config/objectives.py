"""The objectives a student can be trained with."""

from typing import Annotated, Literal

from pydantic import Field

from plad.config.base import Section


class RankObjective(Section):
    """Ranking calibration, Eq. 4, with an optional cross-entropy term."""

    type: Literal["rank"] = "rank"
    beta: float = Field(
        default=1.0, ge=0, description="Margin in nats (of the whole text for sum, of a token for mean). Paper: 1.0."
    )
    length_normalization: Literal["sum", "mean"] = Field(
        default="mean", description="log P of a text: the sum over its tokens, or their mean."
    )
    sft_weight: float = Field(
        default=0.0, ge=0, description="Weight of the mean token cross-entropy of the chosen text; 0 is Eq. 4 alone."
    )


class SftObjective(Section):
    """Cross-entropy on the teacher's answers: SeqKD."""

    type: Literal["sft"] = "sft"


Objective = Annotated[RankObjective | SftObjective, Field(discriminator="type")]
