"""Text for a terminal: model and data text made harmless, tables of at most 80 columns."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from plad.errors import PladError
from plad.problems import ProblemsError
from plad.redact import redact

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 80
FOLDED = 1200  # characters of one text that are shown
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_DIRECTIONS = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_DIRECTIONS}]")


def clean(text: str) -> str:
    """`text` without escape sequences, control characters and direction marks; lines and tabs stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def fold(text: str, limit: int = FOLDED) -> str:
    """`clean(text)`, cut after `limit` characters with a count of the rest."""
    text = clean(text)
    return text if len(text) <= limit else f"{text[:limit]} [... {len(text) - limit:,} more characters]"


def print_error(error: PladError, stream: TextIO | None = None) -> None:
    """Print `error: where: what` and the ways out, without secrets; one block a problem."""
    for one in error.problems if isinstance(error, ProblemsError) else (error,):
        print(clean(redact(f"error: {one}")), file=stream or sys.stderr)


def console() -> "Console":
    """A console that wraps at `WIDTH` columns where the output is no terminal."""
    from rich.console import Console

    made = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, emoji=False, width=WIDTH)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> "RenderableType":
    """A table under its title, if it has one: the first column is text, the others numbers unless said otherwise."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        made.add_column(Text(clean(name)), justify="right" if i and numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(cell)) for cell in row))
    return Group(Text(clean(title), style="bold"), made) if title else made


def panel(title: str, parts: Sequence[tuple[str, str]]) -> "RenderableType":
    """A framed block of labelled texts."""
    from rich.panel import Panel
    from rich.text import Text

    body = Text()
    for i, (label, text) in enumerate(parts):
        body.append("\n" * (i > 0) + clean(label) + "\n", style="bold")
        body.append(fold(text) + "\n")
    body.rstrip()
    return Panel(body, title=Text(clean(title)), title_align="left")
