"""A checksum of each recorded answer: a bit that flips on the disk is found before it teaches anything."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ANSWER = ("key", "system", "example_id", "sample", "outcome", "text", "token_ids", "prompt_tokens")
"""What was asked of whom, and what came: the columns that a checksum is of."""
REPAIR = "plad ledger RUN --repair takes the row out\nplad run CONFIG then asks for the answer again"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that doesn't say what was recorded."""

    row: int
    key: str
    system: str
    example_id: str

    def __str__(self) -> str:
        return f"{self.system}, prompt {self.example_id} (key {self.key[:16]})"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at every row found.

    Attributes:
        unchecked: rows of plad 0.1.0, which wrote no checksums.
    """

    verified: int
    unchecked: int
    damaged: list[Damaged]

    def names(self) -> str:
        """The damaged rows, the first of them by name."""
        more = len(self.damaged) - _SHOWN
        return "; ".join(map(str, self.damaged[:_SHOWN])) + (f"; and {more:,} more" if more > 0 else "")


def checksum(answer: Sequence[object]) -> str:
    """Hash of a row's values in the columns of `ANSWER`."""
    text = json.dumps(answer, ensure_ascii=False, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def check(rows: Iterable[tuple[Any, ...]]) -> Checked:
    """Compare rows with their checksums: each its number, its checksum or None, and the columns of `ANSWER`."""
    verified, unchecked, damaged = 0, 0, list[Damaged]()
    for row, stored, *answer in rows:
        if stored is None:
            unchecked += 1
        elif stored == checksum(answer):
            verified += 1
        else:
            damaged.append(Damaged(row, *map(str, answer[:3])))
    return Checked(verified, unchecked, damaged)
