"""Training a reward model: the vocabulary of `plad reward CONFIG`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from plad.config.base import PACES, PositiveInt, Section, Share
from plad.config.models import LoraSection


class PreferenceColumns(Section):
    """Names of the columns of labelled preferences."""

    id: str = Field(default="id", description="Names a row in messages; its place where there is none.")
    prompt: str = Field(default="prompt", description="Text or messages.")
    chosen: str = Field(default="chosen", description="The answer that people found better.")
    rejected: str = Field(default="rejected", description="The other answer.")
    tie: str = Field(default="tie", description="true where people found neither better; may be missing.")
    references: str = Field(default="references", description="Texts to hold the answers against; may be missing.")


class PreferenceData(Section):
    train: str = Field(description="Preferences: JSONL (also .gz), parquet, or a hub name owner/name:split.")
    validation: str | None = Field(
        default=None, description="Preferences never trained on. Default: `held_out` of the prompts of `train`."
    )
    held_out: Share = Field(default=0.1, description="Share of the prompts kept for measuring, by a hash.")
    columns: PreferenceColumns = PreferenceColumns()
    limit: PositiveInt | None = Field(default=None, description="Use only the first N rows of each file.")


class RewardTraining(Section):
    """A reward model from preferences (Bradley-Terry)."""

    out: Annotated[Path, PACES] = Field(description="The model's folder; it starts at the working directory.")
    seed: int = Field(default=0, ge=0, description="Of the new head, the order of the rows and what is held out.")
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
    epochs: float = Field(default=1.0, gt=0, description="Passes over the data.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the linear schedule.")
    batch_size: PositiveInt = Field(default=8, description="Pairs a step.")
    gradient_accumulation_steps: PositiveInt = Field(default=1, description="Batches added up before a step.")
    max_length: PositiveInt | None = Field(
        default=1024,
        description="Pairs with a longer text, in tokens with the prompt, are left out of training and counted; null: "
        "the model's context.",
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps in which the rate rises to its peak."
    )
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: Annotated[bool, PACES] = Field(
        default=False, description="Recompute activations in the backward pass."
    )
    centre: float = Field(
        default=0.01, ge=0, description="Weight of the squared sum of a pair's two scores: keeps scores around 0."
    )
    checkpoint_steps: Annotated[PositiveInt, PACES] = Field(
        default=200, description="Steps between resumable checkpoints."
    )
