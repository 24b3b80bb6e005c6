"""Labelled preferences from rows: a prompt and two answers, of which people found one better, or neither."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from plad.config.pairs import PreferenceColumns
from plad.data.read import prompt_in, texts_in
from plad.data.rows import DataRow
from plad.data.shapes import plain_preference
from plad.data.sources import RowReader
from plad.errors import DataError
from plad.records import Prompt


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to a prompt.

    Attributes:
        tie: people found neither better; `chosen` and `rejected` are then just two answers.
        references: texts that the answers may be held against.
    """

    id: str
    prompt: Prompt
    chosen: str
    rejected: str
    tie: bool = False
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preferences:
    """The preferences of a source, and how many rows were left out.

    Attributes:
        identical: rows whose two answers are the same text.
        skipped: rows that couldn't be used.
    """

    rows: list[Preference]
    identical: int
    skipped: int


def read_preferences(
    source: str,
    columns: PreferenceColumns,
    *,
    limit: int | None = None,
    skip_invalid: bool = False,
    base: Path | None = None,
) -> Preferences:
    """Read and check the preferences of a file or a hub data set: TRL's rows {"prompt", "chosen", "rejected"},
    or as `shapes` lists them.

    Args:
        source, base: see `read_rows`.
        skip_invalid: drop and count the rows that can't be used, instead of raising.
    """
    reader = RowReader(source, base)
    rows: list[Preference] = []
    identical = 0
    for preference in reader.read(lambda row: _preference(row, columns)):
        if preference.chosen == preference.rejected:
            identical += 1
        else:
            rows.append(preference)
        if limit is not None and len(rows) >= limit:
            break
    reader.check(skip_invalid=skip_invalid)
    if not rows:
        counts = f"{identical} rows have two equal answers, {reader.refused} can't be used"
        raise DataError(f"no preference to read: {counts}", where=source, fix='rows {"prompt", "chosen", "rejected"}')
    return Preferences(rows, identical, reader.refused)


def _preference(row: DataRow, columns: PreferenceColumns) -> Preference:
    if not isinstance(row.value, dict):
        raise ValueError('expected an object {"prompt", "chosen", "rejected"}')
    value = plain_preference(row.value, columns)
    given = value.get(columns.id)
    return Preference(
        row.place if given is None else str(given),
        prompt_in(value, columns.prompt),
        _one(value, columns.chosen),
        _one(value, columns.rejected),
        _tie(value.get(columns.tie), columns.tie),
        texts_in(value, columns.references) if value.get(columns.references) else (),
    )


def _one(value: dict[str, JsonValue], name: str) -> str:
    texts = texts_in(value, name)
    if len(texts) != 1:
        raise ValueError(f"{name}: {len(texts)} texts; expected one answer")
    return texts[0]


def _tie(value: JsonValue, name: str) -> bool:
    if value not in (None, True, False):
        raise ValueError(f"{name}: {value!r}; expected true or false")
    return bool(value)
