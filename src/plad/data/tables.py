"""CSV and TSV files as rows of text cells; an empty cell is null."""

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from pydantic import JsonValue

from plad.data.rows import MAX_LINE_BYTES, BadRow, DataRow
from plad.errors import DataError

_SAVE = "save it as UTF-8, with the names of the columns in the first line"


def read_table(f: BinaryIO, name: str, delimiter: str) -> Iterator[DataRow | BadRow]:
    """The rows of a file whose first line names the columns.

    Args:
        name: of the file, in places.
        delimiter: between cells; semicolons are found where a comma is expected and the first line has none.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _Lines(f, name)
    first = next(iter(lines), "")
    if delimiter == "," and ";" in first and "," not in first:
        delimiter = ";"
    header = next(csv.reader([first], delimiter=delimiter), list[str]())
    _check_header(header, lines, name)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = f"{name}:{lines.number + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as e:
            yield BadRow(place, _why(e))
            continue
        if cells is None:
            return
        if wrong := lines.wrong():
            yield BadRow(*wrong)
        elif len(cells) > 1 or any(cells):  # else a blank line
            yield _row(place, header, cells)


class _Lines:
    """The lines of a file as text, and what is wrong with those read last.

    Attributes:
        number: of the line read last, from 1.
    """

    def __init__(self, f: BinaryIO, name: str) -> None:
        self._file, self._name = f, name
        self.number = self._offset = 0
        self._wrong: tuple[str, str] | None = None

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            self.number += 1
            start, self._offset = self._offset, self._offset + len(line)
            place = f"{self._name}:{self.number}"
            if self.number == 1 and line.startswith(codecs.BOM_UTF8):
                line, start = line.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as e:
                where = f"offset {start + e.start} of the file"
                self._wrong = self._wrong or (place, f"not UTF-8: byte 0x{line[e.start]:02x} at {where}")
                yield line.decode("utf-8", "replace")

    def wrong(self) -> tuple[str, str] | None:
        """Place of the first line that is no UTF-8 since the last call, and why."""
        wrong, self._wrong = self._wrong, None
        return wrong


def _check_header(header: list[str], lines: _Lines, name: str) -> None:
    if wrong := lines.wrong():
        raise DataError(wrong[1], where=wrong[0], fix=_SAVE)
    if twice := [column for column, n in Counter(header).items() if n > 1]:
        raise DataError(f"column {twice[0]!r} stands twice in the header", where=f"{name}:1", fix="rename one of them")


def _row(place: str, header: list[str], cells: list[str]) -> DataRow | BadRow:
    if len(cells) != len(header):
        return BadRow(place, f"{len(cells)} cells, but the header has {len(header)}; quote cells that hold a delimiter")
    value: dict[str, JsonValue] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    return DataRow(place, value)


def _why(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return "a quote that opens in this row is never closed"
    if "field larger" in text:
        return f"a cell of more than {MAX_LINE_BYTES:,} characters: is a quote never closed?"
    return f'not CSV: {text}; a quote inside a quoted cell is written ""'
