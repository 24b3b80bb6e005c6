"""What a report is made of: sections of text, tables, plots and examples, whatever they are shown on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from plad.report.parts.drawing import Axes, render_svg

BETTER, SAME, WORSE, UNKNOWN = "better", "same", "worse", "unknown"  # tones
Points = tuple[list[int], list[float]]
"""Steps and values."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell.

    Attributes:
        text: the figure or name.
        detail: what belongs under it in small print.
        tone: `better`, `worse`, or nothing.
        bar: length of a bar behind it, 0 to 1, or None.
    """

    text: str
    detail: str = ""
    tone: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column is the row's name, the others are numbers unless `words` is set.

    Attributes:
        mine: name of the row that stands out.
        look: on a page: a table, bars with their figures, or terms that are explained.
        lookup: to look things up in, not to be read through: a terminal leaves it out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: bool = False
    mine: str = ""
    look: Literal["table", "bars", "terms"] = "table"
    lookup: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph.

    Attributes:
        text: as a page shows it; empty where it shows none.
        plain: as it is told beside a table in Markdown and in a terminal. Default: `text`.
        tone: `soft` for what explains, `lead` for what comes first, or nothing.
    """

    text: str
    plain: str | None = None
    tone: Literal["soft", "lead", ""] = "soft"


@dataclass(frozen=True, slots=True)
class Code:
    """A command to copy."""

    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure, drawn when it is shown.

    Attributes:
        name: unique on its page.
        title: what it shows.
        alt: the same in words.
        height: in inches.
        draw: onto empty axes.
        curves: by label, what a terminal shows instead.
        unit: of the curves.
    """

    name: str
    title: str
    alt: str
    height: float
    draw: Callable[[Axes], None] = field(compare=False)
    curves: Mapping[str, Points] = field(default_factory=dict[str, Points])
    unit: str = ""

    @property
    def svg(self) -> str:
        """An <svg> element that any HTML page can hold."""
        return render_svg(self.name, self.height, self.draw)


@dataclass(frozen=True, slots=True)
class Plots:
    """Figures side by side."""

    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Examples:
    """The examples of a page.

    Attributes:
        json: what the page's script reads, fit to stand inside a script element; every text in it is harmless.
        first: name of the system that stands first.
        shown, total: examples on the page, and in the test set.
        grounded: share of the targets' content words that stand in the prompts; None without targets.
        unsupported: whether words are marked as unsupported.
        cut: characters a text was cut at.
    """

    json: str
    first: str
    shown: int
    total: int
    grounded: float | None
    unsupported: bool
    cut: int


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks under a title of their own, which a page may show folded."""

    title: str
    blocks: "tuple[Block, ...]"
    folded: bool = False


Block = Text | Table | Plots | Code | Examples | BlockGroup


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A part of a report.

    Attributes:
        id: by which a page's own links find it.
        menu: its name in the page's menu; none where it is empty.
        warnings: what a reader has to know before anything else.
    """

    id: str
    title: str
    menu: str
    blocks: tuple[Block, ...]
    warnings: tuple[str, ...] = ()

    def each(self) -> Iterator[Block]:
        """Every block, those of groups in their place."""
        yield from _flat(self.blocks)


@dataclass(frozen=True, slots=True)
class Score:
    """A system's figure in %, with its interval."""

    name: str
    value: str
    interval: str
    mine: bool = False


@dataclass(frozen=True, slots=True)
class VerdictBox:
    """What a run came to.

    Attributes:
        tone: better, same (not distinguishable), worse, or unknown (nothing was measured).
        headline: a few words.
        sentence: the figures behind the headline.
        notes: further sentences: the teacher, the other judges, small samples.
        measure: what `scores` are, in words.
        scores: of the SFT student, the student and the teacher.
    """

    tone: str
    headline: str
    sentence: str = ""
    notes: tuple[str, ...] = ()
    measure: str = ""
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one report says.

    Attributes:
        kind: report, comparison or sweep.
        name: of what it is about.
        finished: when the last stage ended; empty where that is not said.
        source: the last line, which says where the figures come from.
    """

    kind: str
    name: str
    verdict: VerdictBox
    sections: tuple[ReportSection, ...]
    finished: str = ""
    source: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all sections."""
        return tuple(w for section in self.sections for w in section.warnings)

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Of all sections."""
        blocks = (block for section in self.sections for block in section.each())
        return tuple(plot for block in blocks if isinstance(block, Plots) for plot in block.plots)

    @property
    def examples(self) -> Examples | None:
        """Those of the section that has any."""
        blocks = (block for section in self.sections for block in section.each())
        return next((block for block in blocks if isinstance(block, Examples)), None)

    def told(self) -> Iterator[tuple[Table | None, str]]:
        """Every table with the text before it, and at a section's end text without a table."""
        for section in self.sections:
            texts: list[str] = []
            for block in section.each():
                if isinstance(block, Text):
                    texts.append(block.text if block.plain is None else block.plain)
                elif isinstance(block, Table):
                    yield block, " ".join(filter(None, texts))
                    texts = []
            if rest := " ".join(filter(None, texts)):
                yield None, rest


def blocks(*given: Block | Sequence[Block] | None) -> tuple[Block, ...]:
    """What there is of these blocks, in a row."""
    shown: list[Block] = []
    for block in given:
        if isinstance(block, Sequence):
            shown += block
        elif block is not None:
            shown.append(block)
    return tuple(shown)


def explained(table: Table | None, *texts: Text) -> tuple[Block, ...]:
    """A table after what is said of it; nothing without the table."""
    return () if table is None else (*texts, table)


def group(title: str, *given: Block | Sequence[Block] | None, folded: bool = False) -> BlockGroup | None:
    """A group of what there is of these blocks; None where there is nothing."""
    shown = blocks(*given)
    return BlockGroup(title, shown, folded) if shown else None


def plots(drawn: Sequence[Plot | None]) -> Plots | None:
    """Those that there are, side by side; None without any."""
    shown = tuple(plot for plot in drawn if plot is not None)
    return Plots(shown) if shown else None


def _flat(given: Sequence[Block]) -> Iterator[Block]:
    for block in given:
        if isinstance(block, BlockGroup):
            yield from _flat(block.blocks)
        else:
            yield block
