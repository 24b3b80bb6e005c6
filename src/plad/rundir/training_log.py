"""metrics.jsonl: one row a training step or validation, written as it happens."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from plad.rundir.atomic import write_text
from plad.rundir.reading import reading

Row = dict[str, JsonValue]
Wanted = Callable[[str, int], bool]
"""Whether a row of a training stage and a step is wanted."""


class TrainingLog:
    """The rows of a metrics file, each with the `stage` and the `step` that it is of."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, row: Mapping[str, object]) -> None:
        """Append a row."""
        with reading(self.file, what="can't be written"), self.file.open("ab+") as f:
            if f.tell():
                f.seek(-1, os.SEEK_END)
                if f.read(1) != b"\n":  # a line that a full disk or a power cut tore
                    f.write(b"\n")
            f.write(json.dumps(row).encode() + b"\n")

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every line that is whole, with its row."""
        text = self.file.read_text(encoding="utf-8", errors="replace") if self.file.is_file() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row: JsonValue = json.loads(line)
                if isinstance(row, dict):
                    yield line, row

    def of(self, stage: str) -> list[Row]:
        """The rows of a training stage."""
        return [row for _, row in self.rows() if row.get("stage") == stage]

    def keep(self, wanted: Wanted) -> None:
        """Keep only the wanted rows; torn lines go in any case."""
        kept = "".join(f"{line}\n" for line, row in self.rows() if _is(row, wanted))
        if self.file.is_file() and kept != self.file.read_text(encoding="utf-8", errors="replace"):
            write_text(self.file, kept)

    def mend(self) -> int:
        """Leave out what is no row; returns the number of such lines."""
        if not self.file.is_file():
            return 0
        broken = len(self.file.read_text(encoding="utf-8", errors="replace").splitlines()) - sum(1 for _ in self.rows())
        if broken:
            self.keep(lambda _stage, _step: True)
        return broken

    def copy(self, other: "TrainingLog", wanted: Wanted) -> None:
        """Append rows of another run; those that are there already were copied by a run that was killed."""
        have = {line for line, _ in self.rows()}
        for line, row in other.rows():
            if line not in have and _is(row, wanted):
                self.append(row)


def _is(row: Row, wanted: Wanted) -> bool:
    step = row.get("step")
    return wanted(str(row.get("stage", "")), step if isinstance(step, int) else 0)
