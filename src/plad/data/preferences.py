"""Labelled preferences from rows: a prompt and two answers, of which people found one better, or neither."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plad.config.data import PreferenceColumns
from plad.data.preference_shapes import plain_preference
from plad.data.read import SHOWN, BadRowsError, prompt_in, texts_in
from plad.data.sources import BadRow, Row, read_rows
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
    or as `preference_shapes` lists them.

    Args:
        source: see `read_rows`.
        limit: most rows kept.
        skip_invalid: drop and count the rows that can't be used, instead of raising.
        base: folder in which a relative `source` is looked for first.

    Raises:
        DataError: the source can't be read or holds no usable row.
        BadRowsError: some rows can't be used.
    """
    rows: list[Preference] = []
    bad: list[BadRow] = []
    total_bad = identical = 0
    for row in read_rows(source, base):
        found = _preference(row, columns)
        if isinstance(found, BadRow):
            total_bad += 1
            bad += [found] if len(bad) < SHOWN else []
        elif found.chosen == found.rejected:
            identical += 1
        else:
            rows.append(found)
        if limit is not None and len(rows) >= limit:
            break
    if total_bad and not skip_invalid:
        raise BadRowsError(source, bad, total_bad)
    if not rows:
        counts = f"{identical} rows have two equal answers, {total_bad} can't be used"
        raise DataError(f"no preference to read: {counts}", where=source, fix='rows {"prompt", "chosen", "rejected"}')
    return Preferences(rows, identical, total_bad)


def _preference(row: Row | BadRow, columns: PreferenceColumns) -> Preference | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        value = row.value
        if not isinstance(value, dict):
            raise ValueError('expected an object {"prompt", "chosen", "rejected"}')
        value = plain_preference(value, columns)
        prompt = prompt_in(value, columns.prompt)
        chosen, rejected = (_one(value, name) for name in (columns.chosen, columns.rejected))
        given = value.get(columns.id)
        references = texts_in(value, columns.references) if value.get(columns.references) else ()
        return Preference(
            row.place if given is None else str(given),
            prompt,
            chosen,
            rejected,
            _tie(value.get(columns.tie), columns.tie),
            references,
        )
    except ValueError as e:
        return BadRow(row.place, str(e))


def _one(value: dict[str, Any], name: str) -> str:
    texts = texts_in(value, name)
    if len(texts) != 1:
        raise ValueError(f"{name}: {len(texts)} texts; expected one answer")
    return texts[0]


def _tie(value: Any, name: str) -> bool:
    if value not in (None, True, False):
        raise ValueError(f"{name}: {value!r}; expected true or false")
    return bool(value)
