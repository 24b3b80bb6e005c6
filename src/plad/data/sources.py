"""Rows of a data file with the place of each: JSONL, CSV or TSV (plain or .gz), parquet, or a hub data set."""

import codecs
import difflib
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from pydantic import JsonValue

from plad.data.parquet import iter_parquet
from plad.data.rows import MAX_LINE_BYTES, SHOWN, BadRow, BadRowsError, DataRow, NoColumnError
from plad.data.tables import read_table
from plad.errors import DataError
from plad.rundir.fingerprint import file_sha256, fingerprint

T = TypeVar("T")

_JSONL = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_SUFFIXES = (*_JSONL, *_DELIMITERS, ".parquet")
_FILES = "a .jsonl, .csv, .tsv (each also .gz) or .parquet file"
_HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/([\w.-]+))?:([\w.-]+(?:\[[\d%:]+\])?)")


class RowReader:
    """Turns the rows of a source into something, and keeps what can't be.

    Attributes:
        refused, kept: how many rows couldn't be used, and how many could.
    """

    def __init__(self, source: str, base: Path | None = None) -> None:
        self.source, self.base = source, base
        self.refused = self.kept = 0
        self._first: list[BadRow] = []
        self._lacking: dict[str, str | None] = {}  # what rows without a column say -> the way out

    def read(self, parse: Callable[[DataRow], T]) -> Iterator[T]:
        """What `parse` makes of each row; a row that it raises ValueError for is kept as a bad one."""
        for row in read_rows(self.source, self.base):
            try:
                if isinstance(row, BadRow):
                    raise ValueError(row.why)
                parsed = parse(row)
            except ValueError as e:
                self._refuse(BadRow(row.place, str(e)), e)
            else:
                self.kept += 1
                yield parsed

    def _refuse(self, row: BadRow, error: ValueError) -> None:
        self.refused += 1
        if isinstance(error, NoColumnError):
            if row.why in self._lacking:
                return
            self._lacking[row.why] = error.fix
        if len(self._first) < SHOWN:
            self._first.append(row)

    def check(self, *, skip_invalid: bool = False) -> None:
        """Raise BadRowsError where rows were refused; those that may be skipped, where no other is left."""
        if not self.refused or (skip_invalid and self.kept):
            return
        way = next((fix for fix in self._lacking.values() if fix is not None), None)
        same = next(iter(self._lacking)) if len(self._lacking) == len(self._first) == 1 else None
        raise BadRowsError(self.source, self._first, self.refused, kept=self.kept, way=way, same=same)


class _HubName(NamedTuple):
    name: str
    config: str | None
    split: str


def read_rows(source: str, base: Path | None = None) -> Iterator[DataRow | BadRow]:
    """Each row of a file or a hub data set, or what is wrong with it.

    Args:
        source: path of a .jsonl, .csv, .tsv (each also .gz) or .parquet file, or `owner/name:split`
            (`owner/name/config:split`, where config may also be a folder of the data set, and split a slice such as
            `train[:95%]`).
        base: folder in which a relative path is looked for first.
    """
    given, source = source, locate(source, base)
    path = Path(source)
    if path.is_file():
        if source.endswith(_JSONL):
            return _read_lines(path, lambda f: _parse_lines(f, str(path)))
        if suffix := next((s for s in _DELIMITERS if source.endswith(s)), None):
            return _read_lines(path, lambda f: read_table(f, str(path), _DELIMITERS[suffix]))
        if source.endswith(".parquet"):
            return _read_parquet(path)
        raise DataError(
            f"unknown kind of file {path.suffix or '(no suffix)'}",
            where=source,
            fix=f"give {_FILES}, or a hub name owner/name:split",
        )
    name = _hub_name(source)
    if name is not None:
        return _read_hub(source, name)
    raise _missing(path, given, base)


def source_fingerprint(source: str, base: Path | None) -> str:
    """What a source holds: a file's SHA-256, or the commit that the files of a hub data set come from."""
    place = Path(locate(source, base))
    if place.is_file():
        return file_sha256(place)
    name = _hub_name(source)
    if name is None:
        raise _missing(place, source, base)
    files: Iterable[str] = _load_hub(source, name).info.download_checksums or ()
    return fingerprint([source, sorted(files)])


def _hub_name(source: str) -> _HubName | None:
    match = _HUB_NAME.fullmatch(source)
    if match is None or Path(source).exists() or source.endswith(_SUFFIXES):
        return None
    return _HubName(*match.groups())


def _missing(path: Path, source: str, base: Path | None) -> DataError:
    if path.is_dir():
        return DataError("is a folder, not a data file", where=source, fix=f"name {_FILES}")
    folders = [f for f in ((base or Path()) / path.parent, path.parent) if f.is_dir()]
    siblings = dict.fromkeys(p.name for f in folders for p in f.iterdir())
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {path.parent / close[0]}?\n" if close else ""
    return DataError(
        "no such data file", where=source, fix=f"{hint}paths are read from the config's folder, then from here"
    )


def _read_lines(path: Path, parse: Callable[[BinaryIO], Iterator[DataRow | BadRow]]) -> Iterator[DataRow | BadRow]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as f:
            yield from parse(cast(BinaryIO, f))
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"damaged gzip file ({e})", where=str(path), fix="copy or download it again") from None
    except OSError as e:
        raise DataError(f"can't be read ({e.strerror or e})", where=str(path), fix="check its permissions") from None


def _parse_lines(f: BinaryIO, name: str) -> Iterator[DataRow | BadRow]:
    offset = 0
    number = 0
    while line := f.readline(MAX_LINE_BYTES + 1):
        number += 1
        place = f"{name}:{number}"
        start, offset = offset, offset + len(line)
        if len(line) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (line := f.readline(2**20)):
                offset += len(line)
            yield BadRow(place, f"line of {offset - start:,} bytes; at most {MAX_LINE_BYTES:,} are read")
            continue
        if number == 1 and line.startswith(codecs.BOM_UTF8):
            line, start = line.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
        if line.strip():
            yield _parse_line(line, place, start)


def _parse_line(line: bytes, place: str, start: int) -> DataRow | BadRow:
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as e:
        return BadRow(place, f"not UTF-8: byte 0x{line[e.start]:02x} at offset {start + e.start} of the file")
    try:
        return DataRow(place, json.loads(text, object_pairs_hook=_no_twice))
    except json.JSONDecodeError as e:
        nul = "; the file holds a NUL byte" if "\0" in text else ""
        return BadRow(f"{place}:{e.colno}", f"not JSON: {e.msg[0].lower()}{e.msg[1:]}{nul}")
    except RecursionError:
        return BadRow(place, "not JSON: nested too deeply")
    except ValueError as e:
        return BadRow(place, str(e))


def _no_twice(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"column {next(n for n in names if names.count(n) > 1)!r} stands twice in the row")
    return value


def _read_parquet(path: Path) -> Iterator[DataRow | BadRow]:
    try:
        for number, value in enumerate(cast(Iterator[JsonValue], iter_parquet(path)), start=1):
            yield DataRow(f"{path}:row {number}", value)
    except ValueError as e:
        raise DataError(f"not a readable parquet file ({e})", where=str(path), fix="write it again") from None


def _read_hub(source: str, name: _HubName) -> Iterator[DataRow | BadRow]:
    for number, value in enumerate(cast(Iterable[JsonValue], _load_hub(source, name)), start=1):
        yield DataRow(f"{source}:row {number}", value)


def _load_hub(source: str, hub: _HubName) -> Any:
    """A data set of `datasets`, which is heavy and of which types say little."""
    load = import_module("datasets").load_dataset
    try:
        try:
            return load(hub.name, hub.config, split=hub.split)
        except ValueError as e:
            if hub.config is None or "BuilderConfig" not in str(e):
                raise
            return load(hub.name, data_dir=hub.config, split=hub.split)  # a folder of the data set
    except Exception as e:  # the hub client raises a dozen unrelated kinds
        first = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise DataError(
            f"can't load this data set from the hub ({type(e).__name__}: {first})",
            where=source,
            fix="check the name, the split and the network (HF_HUB_OFFLINE, HF_TOKEN)\n"
            "or download it and give the path of a file",
        ) from None


def locate(name: str, base: Path | None) -> str:
    """A data or model path as it is opened.

    A relative path is looked for in `base`, the config's folder, then in the working directory. What exists in neither
    (a hub name) stays as it is.
    """
    place = Path(name).expanduser()
    if base is not None and not place.is_absolute() and (base / place).exists():
        return str(base / place)
    return str(place) if place.exists() else name
