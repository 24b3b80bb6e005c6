"""Where a run is kept, and the rows it works on."""

from pathlib import Path

from pydantic import Field

from plad.config.base import PositiveInt, Section, Share


class RunSection(Section):
    dir: Path = Field(description="Directory of this run; relative to the working directory.")
    seed: int = Field(default=0, ge=0, description="Seeds the split, sampling, data order, dropout and bootstrap.")


class Columns(Section):
    """Names of the columns in the data files."""

    id: str = Field(default="id", description="Optional id column; without it ids come from the prompt's content.")
    prompt: str = Field(default="prompt", description="Prompt column: text, or a list of {role, content} messages.")
    reference: str | None = Field(
        default=None,
        description="Target column: text or a list of texts. Default: the first of references, reference, completion.",
    )


class DataSection(Section):
    train: str = Field(
        description="JSONL (also .gz), parquet, or hub name `owner/name:split`; split into D0 and D; needs references."
    )
    validation: str | None = Field(default=None, description="Rows to choose checkpoints on; needs references.")
    test: str = Field(description="Rows to evaluate on; needs references.")
    columns: Columns = Columns()
    sft_share: Share = Field(default=0.5, description="Share of train used for fine-tuning (D0). Paper: 0.5.")
    limit: PositiveInt | None = Field(default=None, description="Use only the first N rows of every file.")
