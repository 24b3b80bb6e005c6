"""What `plad sweep` tries."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from plad.config.base import PACES, PositiveInt, Section

YARDSTICK = ("run.dir", "sweep", "evaluate", "data.validation", "distill.validation")


class SweepRange(Section):
    """Numbers from low to high; whole ones where the setting is a whole number."""

    low: float
    high: float
    log: bool = Field(default=False, description="Even on a logarithmic scale, for rates and other scales.")
    step: float | None = Field(default=None, gt=0, description="Only low, low + step, ...")

    @model_validator(mode="after")
    def _is_a_range(self) -> "SweepRange":
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and takes no step")
        return self


class SweepSection(Section):
    """A search for the settings with the best validation figure."""

    dir: Annotated[Path | None, PACES] = Field(
        default=None, description="Directory of the sweep. Default: run.dir with -sweep behind it."
    )
    trials: Annotated[PositiveInt | None, PACES] = Field(
        default=None, description="Trials in all. Default: 20, or the whole grid."
    )
    metric: Literal["win_rate", "rougeL"] = Field(
        default="win_rate",
        description="Of the best weights on validation rows: win rate by the first judge, or ROUGE-L.",
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        default="tpe",
        description="tpe: Optuna's tree-structured Parzen estimator, whose first ten trials are random; grid: every "
        "combination of the choices.",
    )
    keep: Annotated[Literal["best", "all"], PACES] = Field(
        default="best", description="best: of the trials' students only the best one's weights stay on disk."
    )
    space: dict[str, SweepRange | tuple[Any, ...]] = Field(
        min_length=1,
        description="Dotted setting -> list of choices, or {low, high, log, step}. A setting below another one in the "
        "space is tried only where it exists.",
    )

    @model_validator(mode="after")
    def _space_can_be_tried(self) -> "SweepSection":
        for key, values in self.space.items():
            for fixed in YARDSTICK:
                if f"{key}.".startswith(f"{fixed}.") or f"{fixed}.".startswith(f"{key}."):
                    raise ValueError(f"space: {key} can't be tried: trials are compared by what {fixed} says")
            if values == ():
                raise ValueError(f"space: {key} has no choices")
            if self.sampler == "grid" and isinstance(values, SweepRange):
                raise ValueError(f"space: {key} needs a list of choices for a grid")
        return self
