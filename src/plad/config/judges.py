"""Who says which of two answers is better."""

from typing import Annotated, Literal

from pydantic import Field

from plad.config.base import PositiveInt, Section


class ReferenceJudge(Section):
    """Scores an answer by ROUGE-L F1 against the references other than the target."""

    type: Literal["reference"] = "reference"


class RewardJudge(Section):
    """Scores an answer with a reward model: any sequence classifier with one output."""

    type: Literal["reward"] = "reward"
    model: str = Field(description="Folder or hub name.")
    revision: str | None = None
    input: Literal["pair", "chat"] = Field(
        default="pair", description="pair: prompt and answer as a text pair; chat: through the chat template."
    )
    batch_size: PositiveInt = 8
    max_length: PositiveInt | None = Field(
        default=None, description="Default: the model's context; truncation is counted."
    )


Judge = Annotated[ReferenceJudge | RewardJudge, Field(discriminator="type")]
