"""What judges say of themselves, as a report reads it."""

from typing import Self

from pydantic import BaseModel, JsonValue, ValidationError


class PositionBias(BaseModel):
    """How many comparisons the order of the two answers decided."""

    prefers_first: int = 0
    prefers_second: int = 0
    tie_in_one_order: int = 0
    share: float | None = None


class JudgeFacts(BaseModel):
    """What a judge says of itself, as far as every reader knows it; a judge may say more.

    Attributes:
        rule: what decides, in words.
        decided: comparisons asked in both orders that have a verdict.
        unjudged: replies without a verdict, by reason.
        speaks_to_judge, wins_denied: answers that tried to influence the judge, and wins they lost by it.
        canaries, canaries_obeyed: comparisons with an injected instruction, and those that it decided.
        scored, truncated: inputs, and those that were cut off.
    """

    type: str = ""
    model: str | None = None
    task: str | None = None
    rubric: str | None = None
    rule: str | None = None
    decided: int = 0
    position_bias: PositionBias | None = None
    unjudged: dict[str, int] = {}
    speaks_to_judge: int = 0
    wins_denied: int = 0
    canaries: int = 0
    canaries_obeyed: int = 0
    scored: int | None = None
    truncated: int = 0

    @classmethod
    def of(cls, described: JsonValue) -> Self:
        """From what any judge says; what is not of its type is as good as not said."""
        try:
            return cls.model_validate(described)
        except ValidationError as e:
            unfit = {error["loc"][0] for error in e.errors() if error["loc"]}
            known = described if isinstance(described, dict) else {}
            return cls.model_validate({name: value for name, value in known.items() if name not in unfit})
