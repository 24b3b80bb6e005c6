"""Examples from rows: every row checked, every bad one reported with its place and the expected shape."""

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from plad.config.root import Columns
from plad.data.rows import DataRow, NoColumnError
from plad.data.shapes import split_dialogue
from plad.data.sources import RowReader
from plad.data.split import prompt_key
from plad.errors import DataError
from plad.records import Example, Message, Prompt
from plad.text import is_blank

REFERENCE_COLUMNS = ("references", "reference", "completion")
_USUAL = {  # how other data sets name them, likeliest first
    "prompt": (
        "question",
        "instruction",
        "input",
        "query",
        "source",
        "document",
        "article",
        "post",
        "dialogue",
        "text",
    ),
    "reference": ("answer", "response", "output", "target", "summary", "label", "highlights", "chosen", "solution"),
    "dialogue": ("chosen", "dialogue", "text", "conversation"),
}
_NAMED = 20  # columns in a message
_PROMPT_SHAPE = 'text, or a list of {"role": ..., "content": text} that ends with the user'
_REFERENCE_SHAPE = 'text, a list of texts, or [{"role": "assistant", "content": text}]'


@dataclass(frozen=True)
class ReadResult:
    """The examples of one source.

    Attributes:
        places: `file:line` of each example.
        skipped: rows dropped because they couldn't be used.
        duplicates: examples whose prompt (normalised) stood before; they are kept.
    """

    examples: list[Example]
    places: list[str]
    skipped: int
    duplicates: int

    def placed(self) -> Iterator[tuple[str, Example]]:
        """Each example with its place."""
        return zip(self.places, self.examples, strict=True)


def read_examples(
    source: str,
    columns: Columns,
    *,
    limit: int | None = None,
    skip_invalid: bool = False,
    need_references: bool = False,
    base: Path | None = None,
) -> ReadResult:
    """Read and check the examples of a file or a hub data set.

    Args:
        source, base: see `read_rows`.
        skip_invalid: drop and count the rows that can't be used, instead of raising.
        need_references: a row without a reference can't be used.
    """
    rows = RowReader(source, base)
    parser = _ExampleParser(columns, need_references)
    examples: list[Example] = []
    for example in rows.read(parser.parse):
        examples.append(example)
        if limit is not None and len(examples) >= limit:
            break
    rows.check(skip_invalid=skip_invalid)
    if not examples:
        raise DataError("the file holds no row", where=source, fix="give a file with at least one usable row")
    keys = {prompt_key(e.prompt) for e in examples}
    return ReadResult(examples, list(parser.places.values()), rows.refused, len(examples) - len(keys))


class _ExampleParser:
    """Turns rows into examples, each with an id of its own.

    Attributes:
        places: id -> place, in the order of the rows.
    """

    def __init__(self, columns: Columns, need_references: bool) -> None:
        self.columns, self.need_references = columns, need_references
        self.needs_id = "id" in columns.model_fields_set
        self.places: dict[str, str] = {}
        self._derived: Counter[str] = Counter()
        self._first: Example | None = None

    def parse(self, row: DataRow) -> Example:
        """The example in a row."""
        try:
            example = self._example(row.value)
        except NoColumnError as e:
            raise NoColumnError(str(e), self._columns_for(cast(dict[str, JsonValue], row.value))) from None
        if example.id in self.places:
            raise ValueError(f"id {example.id!r} is used before, at {self.places[example.id]}")
        self.places[example.id] = row.place
        self._first = self._first or example
        return example

    def _example(self, value: JsonValue) -> Example:
        if not isinstance(value, dict):
            raise ValueError(f'expected an object like {{"prompt": ...}}, got {_kind(value)}')
        if self.columns.dialogue is not None:
            return self._dialogue(value, self.columns.dialogue)
        prompt = prompt_in(value, self.columns.prompt)
        if self._first is not None and isinstance(prompt, str) != isinstance(self._first.prompt, str):
            kinds = ("text", "messages") if isinstance(prompt, str) else ("messages", "text")
            raise ValueError(f"{self.columns.prompt}: {kinds[0]}, but the first row has {kinds[1]}; one kind a file")
        return Example(self._id(value, prompt), prompt, self._references(value))

    def _columns_for(self, value: dict[str, JsonValue]) -> str | None:
        """The setting that names the columns of a row; None where none of them can be meant."""
        wanted: dict[str, tuple[str, ...]] = {}
        if self.columns.dialogue is not None:
            wanted["dialogue"] = (self.columns.dialogue,)
        else:
            wanted["prompt"] = (self.columns.prompt,)
            named = self.columns.reference
            if self.need_references or named is not None:
                wanted["reference"] = REFERENCE_COLUMNS if named is None else (named,)
        if self.needs_id:
            wanted["id"] = (self.columns.id,)
        return columns_line(value, wanted)

    def _dialogue(self, value: dict[str, JsonValue], name: str) -> Example:
        text = _text(_column(value, name), name)
        try:
            prompt, answer = split_dialogue(text, self.columns.dialogue_prompt)
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from None
        return Example(self._id(value, prompt), prompt, (answer,))

    def _id(self, value: dict[str, JsonValue], prompt: Prompt) -> str:
        given = value.get(self.columns.id)
        if given is None:
            if self.needs_id:
                _column(value, self.columns.id)
                raise ValueError(f"{self.columns.id}: null; expected text or a whole number")
            derived = _derived_id(prompt)
            self._derived[derived] += 1
            number = self._derived[derived]
            return derived if number == 1 else f"{derived}-{number}"
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise ValueError(f"{self.columns.id}: {_kind(given)}; expected text or a whole number")
        return _text(str(given), self.columns.id)

    def _references(self, value: dict[str, JsonValue]) -> tuple[str, ...]:
        name = self.columns.reference
        if name is None:
            given = [c for c in REFERENCE_COLUMNS if value.get(c) is not None]
            if not given:
                if not self.need_references:
                    return ()
                null = [c for c in REFERENCE_COLUMNS if c in value]
                if null:
                    raise ValueError(f"{null[0]}: null; expected {_REFERENCE_SHAPE}")
                names = ", ".join(REFERENCE_COLUMNS)
                raise NoColumnError(f"no column {names} (has {_names(value)}); a target is needed")
            name = given[0]
        elif value.get(name) is None and not self.need_references:
            return ()
        return texts_in(value, name)


def _column(value: dict[str, JsonValue], name: str) -> JsonValue:
    if name not in value:
        raise NoColumnError(f"no column {name!r} (has {_names(value)})")
    return value[name]


def _part(message: dict[str, JsonValue], name: str) -> JsonValue:
    """What `_column` gives, of a message; no setting names its parts."""
    try:
        return _column(message, name)
    except NoColumnError as e:
        raise ValueError(str(e)) from None


def _names(value: dict[str, JsonValue]) -> str:
    names = ", ".join(repr(n)[:40] for n in list(value)[:_NAMED])
    return f"{names}, ..." if len(value) > _NAMED else names or "none"


def _kind(value: JsonValue) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _text(value: JsonValue, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: {_kind(value)}; expected text")
    if is_blank(value):
        raise ValueError(
            f"{name}: blank{'' if not value.strip() else ' (nothing but invisible characters)'}; expected text"
        )
    if "\0" in value:
        raise ValueError(f"{name}: holds a NUL character at position {value.index(chr(0))}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(f"{name}: lone surrogate U+{ord(value[e.start]):04X} at position {e.start}") from None
    return value


def parse_prompt(value: JsonValue, name: str) -> Prompt:
    """A prompt as data has it: text, or messages that end with the user."""
    if isinstance(value, str):
        return _text(value, name)
    if not isinstance(value, list):
        raise ValueError(f"{name}: {_kind(value)}; expected {_PROMPT_SHAPE}")
    messages = tuple(_message(m, f"{name}[{i}]") for i, m in enumerate(value))
    if not messages or messages[-1]["role"] != "user":
        last = f"ends with {messages[-1]['role']!r}" if messages else "an empty list"
        raise ValueError(f"{name}: {last}; expected {_PROMPT_SHAPE}")
    return messages


def _message(value: JsonValue, name: str) -> Message:
    if not isinstance(value, dict):
        raise ValueError(f'{name}: {_kind(value)}; expected {{"role": ..., "content": text}}')
    return Message(
        role=_text(_part(value, "role"), f"{name}.role"), content=_text(_part(value, "content"), f"{name}.content")
    )


def prompt_in(row: dict[str, JsonValue], name: str) -> Prompt:
    """The prompt in a row's column."""
    return parse_prompt(_column(row, name), name)


def texts_in(row: dict[str, JsonValue], name: str) -> tuple[str, ...]:
    """The texts in a row's column, without outer white space: a text, a list of them, or one assistant's message."""
    value = _column(row, name)
    if isinstance(value, str):
        return (_text(value, name).strip(),)
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else _kind(value)
        raise ValueError(f"{name}: {kind}; expected {_REFERENCE_SHAPE}")
    if isinstance(value[0], dict):
        message = _message(value[0], f"{name}[0]")
        if len(value) > 1 or message["role"] != "assistant":
            raise ValueError(f"{name}: a conversation; expected {_REFERENCE_SHAPE}")
        return (message["content"].strip(),)
    return tuple(_text(v, f"{name}[{i}]").strip() for i, v in enumerate(value))


def columns_line(row: dict[str, JsonValue], wanted: dict[str, tuple[str, ...]]) -> str | None:
    """The `data.columns` that would find in a row what is wanted, as far as its columns' names tell.

    Args:
        wanted: setting -> the names of which one should be there.
    """
    free = [name for name, value in row.items() if isinstance(value, str | list)]
    chosen: dict[str, str] = {}
    for setting, names in wanted.items():
        if not any(name in row for name in names):
            guess = _likeliest(setting, names, [name for name in free if name not in chosen.values()])
            chosen[setting] = guess or "NAME"
    if not free or not chosen:
        return None
    mapping = ", ".join(f"{setting}: {_yaml(name)}" for setting, name in chosen.items())
    which = f", where NAME is one of {', '.join(free[:_NAMED])}" if "NAME" in chosen.values() else ""
    return f"data.columns: {{{mapping}}}{which}"


def _likeliest(setting: str, names: tuple[str, ...], free: list[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(free)}
    close = difflib.get_close_matches(names[-1].lower(), lower, n=1, cutoff=0.8)
    known = [name for name in (*names, *_USUAL.get(setting, ())) if name in lower]
    return next((lower[name] for name in [*close, *known]), None)


def _yaml(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w ]*[A-Za-z_]", name) else json.dumps(name, ensure_ascii=False)


def _derived_id(prompt: Prompt) -> str:
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode()).hexdigest()[:16]
