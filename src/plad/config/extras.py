"""The vocabulary of the commands around a run: `plad sweep` and `plad reward`."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from plad.config.base import PACES, PositiveInt, Section, Seed, Share, WritablePath
from plad.config.models import LoraSection, Optimization
from plad.config.pairs import PreferenceColumns

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

    dir: Annotated[WritablePath | None, PACES] = Field(
        default=None, description="Directory of the sweep. Default: run.dir with -sweep behind it."
    )
    trials: Annotated[PositiveInt | None, PACES] = Field(
        default=None, description="Trials in all. Default: 20, or the whole grid."
    )
    metric: Literal["win_rate", "rougeL"] = Field(
        default="win_rate",
        description="Of the best weights on validation rows: win rate by the first judge, or ROUGE-L. Default: what "
        "chooses weights, that is ROUGE-L where the first judge can't compare most rows with the target.",
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        default="tpe",
        description="tpe: Optuna's tree-structured Parzen estimator, whose first ten trials are random; grid: every "
        "combination of the choices.",
    )
    keep: Annotated[Literal["best", "all"], PACES] = Field(
        default="best", description="best: of the trials' students only the best one's weights stay on disk."
    )
    space: dict[str, SweepRange | tuple[JsonValue, ...]] = Field(
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


class PreferenceData(Section):
    train: str = Field(
        description="Preferences: JSONL, CSV or TSV (each also .gz), parquet, or a hub name owner/name:split."
    )
    validation: str | None = Field(
        default=None, description="Preferences never trained on. Default: `held_out` of the prompts of `train`."
    )
    held_out: Share = Field(default=0.1, description="Share of the prompts kept for measuring, by a hash.")
    columns: PreferenceColumns = PreferenceColumns()
    limit: PositiveInt | None = Field(default=None, description="Use only the first N rows of each file.")


class RewardTraining(Optimization):
    """A reward model from preferences (Bradley-Terry)."""

    out: Annotated[WritablePath, PACES] = Field(description="The model's folder; it starts at the working directory.")
    seed: Seed = Field(default=0, description="Of the new head, the order of the rows and what is held out.")
    data: PreferenceData
    model: str = Field(description="Folder or hub name of the model to start from, encoder or decoder.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto: computes in bfloat16 on a GPU that has it, else in float32; trained weights are float32.",
    )
    input: Literal["auto", "pair", "chat", "plain"] = Field(
        default="auto",
        description="pair: prompt and answer as a text pair (encoders); chat: through the chat template; plain: "
        "prompt, a blank line, answer, end of sequence. auto: chat with a template, pair for encoders, else plain.",
    )
    lora: LoraSection | None = Field(
        default=LoraSection(), description="Adapter to train beside the new head, merged in the end; null: all weights."
    )
    batch_size: PositiveInt = Field(default=8, description="Pairs a step.")
    max_length: PositiveInt | None = Field(
        default=1024,
        description="Pairs with a longer text, in tokens with the prompt, are left out of training and counted; null: "
        "the model's context.",
    )
    centre: float = Field(
        default=0.01, ge=0, description="Weight of the squared sum of a pair's two scores: keeps scores around 0."
    )
    checkpoint_steps: Annotated[PositiveInt, PACES] = Field(
        default=200, description="Steps between resumable checkpoints."
    )
