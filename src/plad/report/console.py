"""A terminal: tables and panels of at most 80 columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plad.text import clean, fold

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 80


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


def panel(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> "RenderableType":
    """A framed block: of each row its heading, if it has one, and its labelled texts in two columns."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for heading, texts in rows:
        if heading:
            parts.append(Text(clean(heading), style="italic"))
        cells = [Text.assemble((clean(label) + "\n", "bold"), fold(text) + "\n") for label, text in texts]
        grid = Table.grid(*([""] * min(2, len(cells))), expand=True, padding=(0, 1))
        for column in grid.columns:
            column.ratio, column.overflow = 1, "fold"
        for at in range(0, len(cells), 2):
            grid.add_row(*cells[at : at + 2])
        parts.append(grid)
    return Panel(Group(*parts), title=Text(clean(title)), title_align="left")
