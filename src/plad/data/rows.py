"""One row of a data file and its place, a row that can't be used, and the error that names those."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from plad.errors import DataError

SHOWN = 20  # bad rows named in an error; the rest are counted
MAX_LINE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class DataRow:
    """One JSON value and where it stands."""

    place: str
    value: JsonValue


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be used, where it stands and why."""

    place: str
    why: str


class NoColumnError(ValueError):
    """A row lacks a column, as its whole file may; every row says so in the same words.

    Attributes:
        fix: the setting that names the right column.
    """

    def __init__(self, why: str, fix: str | None = None) -> None:
        self.fix = fix
        super().__init__(why)


class BadRowsError(DataError):
    """Rows that can't be used; names the first `SHOWN` and the number of all.

    Attributes:
        kept: rows that can be used.
        way: the way out that a missing column has.
        same: what every one of them says, where that is a column that they lack.
    """

    def __init__(
        self,
        source: str,
        bad: Sequence[BadRow],
        total: int,
        *,
        kept: int = 0,
        way: str | None = None,
        same: str | None = None,
    ) -> None:
        self.bad, self.total, self.kept, self.way, self.same = list(bad), total, kept, way, same
        head = f"{total} row{'s' * (total > 1)} can't be used" + (", and there is no other" if not kept else "")
        lines = [f"  {row.place}: {row.why}" for row in bad]
        if total > len(bad):
            lines.append(f"  ... and {total - len(bad)} more" + (" that say the same" if same is not None else ""))
        ways = [way or "correct the rows (data.columns maps other column names)"]
        ways += ["or drop them: --skip-invalid"] if kept else []
        super().__init__("\n".join([head, *lines]), where=source, fix="\n".join(ways))


def once(errors: Sequence[DataError]) -> list[DataError]:
    """The errors, with one for all files that lack the same column."""
    several: dict[tuple[str, str | None], list[BadRowsError]] = {}
    for e in errors:
        if isinstance(e, BadRowsError) and e.same is not None:
            several.setdefault((e.same, e.way), []).append(e)
    merged = [
        BadRowsError(
            ", ".join(str(e.where) for e in same),
            same[0].bad,
            sum(e.total for e in same),
            kept=sum(e.kept for e in same),
            way=way,
            same=why,
        )
        for (why, way), same in several.items()
    ]
    return [*merged, *(e for e in errors if not (isinstance(e, BadRowsError) and e.same is not None))]
