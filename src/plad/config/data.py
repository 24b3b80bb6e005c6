"""The rows that a run works on."""

from typing import Literal

from pydantic import Field, model_validator

from plad.config.base import PositiveInt, Section, Share


class Columns(Section):
    """Names of the columns in the data files."""

    id: str = Field(default="id", description="Optional id column; without it ids come from the prompt's content.")
    prompt: str = Field(default="prompt", description="Prompt column: text, or a list of {role, content} messages.")
    reference: str | None = Field(
        default=None,
        description="Target column: text or a list of texts. Default: the first of references, reference, completion.",
    )
    dialogue: str | None = Field(
        default=None,
        description="Column that holds a dialogue `Human: ... Assistant: ...` whose last answer is the target, as the "
        "hub's HH data has it (`chosen`); takes the place of `prompt` and `reference`.",
    )
    dialogue_prompt: Literal["text", "messages"] = Field(
        default="text",
        description="What a dialogue's prompt is: text, as it stands up to the last `Assistant:`; or messages, for the "
        "chat format.",
    )

    @model_validator(mode="after")
    def _dialogue_stands_alone(self) -> "Columns":
        others = {"prompt", "reference"} & self.model_fields_set
        if self.dialogue is not None and others:
            raise ValueError(f"dialogue holds prompt and target; leave {' and '.join(sorted(others))} out")
        return self


class PreferenceColumns(Section):
    """Names of the columns of labelled preferences."""

    id: str = Field(default="id", description="Names a row in messages; its place where there is none.")
    prompt: str = Field(default="prompt", description="Text or messages.")
    chosen: str = Field(default="chosen", description="The answer that people found better.")
    rejected: str = Field(default="rejected", description="The other answer.")
    tie: str = Field(default="tie", description="true where people found neither better; may be missing.")
    references: str = Field(default="references", description="Texts to hold the answers against; may be missing.")


class DataSection(Section):
    train: str = Field(
        description="JSONL (also .gz), parquet, or hub name `owner/name:split`; split into D0 and D; needs references. "
        "Of the hub also `owner/name/config:split`, where config may be a folder of the data set, and a slice such as "
        "`owner/name:train[:95%]`."
    )
    validation: str | None = Field(default=None, description="Rows to choose checkpoints on; needs references.")
    test: str = Field(description="Rows to evaluate on; needs references.")
    columns: Columns = Columns()
    overlap: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="Prompts that stand in two files: refuse names them; drop leaves them out of train, and of "
        "validation where they stand in test, and counts them.",
    )
    sft_share: Share = Field(default=0.5, description="Share of train used for fine-tuning (D0). Paper: 0.5.")
    limit: PositiveInt | None = Field(default=None, description="Use only the first N rows of every file.")
