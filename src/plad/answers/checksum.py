"""A checksum of each recorded answer: a bit that flips on the disk is found before it teaches anything."""

import contextlib
import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plad.errors import RunDirError
from plad.records import Generation, Outcome

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
        unchecked: readable rows of plad 0.1.0, which wrote no checksums.
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


def parse(answer: Sequence[Any], stored: str | None = None) -> Generation:
    """An answer, of a row's values in the columns of `ANSWER`.

    Args:
        stored: its checksum; None leaves it unchecked.

    Raises:
        ValueError: they are none, or others than were recorded.
    """
    if stored is not None and stored != checksum(answer):
        raise ValueError("its checksum differs")
    _, _, example_id, sample, outcome, text, token_ids, prompt_tokens = answer
    ids = json.loads(token_ids)
    if not isinstance(ids, list) or not isinstance(text, str):
        raise ValueError("its text or tokens are none")
    return Generation(example_id, sample, text, tuple(ids), Outcome(outcome), prompt_tokens)  # pyright: ignore[reportUnknownArgumentType]


@contextlib.contextmanager
def damage_named(ledger: Path, key: str, system: str, example_id: str) -> Generator[None]:
    """A block that parses a row of a ledger: a damaged one is named with its way out."""
    try:
        yield
    except ValueError as e:
        what = f"the recorded answer of {system} to prompt {example_id} is damaged ({e}; key {key})"
        raise RunDirError(what, where=str(ledger), fix=REPAIR) from None


def _is_readable(answer: Sequence[Any]) -> bool:
    try:
        return parse(answer) is not None
    except ValueError:
        return False


def check(rows: Iterable[tuple[Any, ...]]) -> Checked:
    """Compare rows with their checksums: each its number, its checksum or None, and the columns of `ANSWER`."""
    verified, unchecked, damaged = 0, 0, list[Damaged]()
    for row, stored, *answer in rows:
        if stored is None and _is_readable(answer):
            unchecked += 1
        elif stored == checksum(answer):
            verified += 1
        else:
            damaged.append(Damaged(row, *map(str, answer[:3])))
    return Checked(verified, unchecked, damaged)
