"""How figures are drawn: inline SVG, the same bytes for the same numbers, in the colours of the page around it."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plad.report.wording import interval, number

WIDTH = 4.4  # inches; a phone shows this at three quarters
LABEL = 28  # characters of a row's name

# Placeholders that become the page's own colours, so that dark mode needs no second figure.
INK, SOFT, GRID, A, B, C = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
_VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--line", A: "--accent", B: "--second", C: "--third"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure.

    Attributes:
        title: what it shows.
        svg: an <svg> element that any HTML page can hold.
        alt: the same in words.
    """

    title: str
    svg: str
    alt: str


def render_svg(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's own fonts draw the text
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format")))
    return _inline(buffer.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """The bare <svg> element: no prolog, metadata or addresses; its ids its own; its colours the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'<svg\b[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return re.sub(r"\n\s*", "\n", svg).strip()


def dots(
    axes: Axes,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    scale: float,
    *,
    mine: str | None = None,
    sign: bool = False,
) -> None:
    """One line a row: a dot at its value, a bar over its interval, the figure beside it; `mine` in colour."""
    for y, (name, e) in enumerate(reversed(rows)):
        colour = A if name == mine else SOFT
        value = e["value"] * scale
        low, high = (value if e.get(k) is None else e[k] * scale for k in ("low", "high"))
        axes.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round", clip_on=False)
        axes.plot([value], [y], "o", color=colour, markersize=7, clip_on=False)
        axes.text(value, y + 0.24, number(e["value"], scale=scale, sign=sign), ha="center", va="bottom", fontsize=9)
    name_rows(axes, [name for name, _ in rows])


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of the rows from the top down, on an axis without a line."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names[::-1]])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _short(name: str) -> str:
    """A name that leaves room for the figure; the end of a path tells more than its beginning."""
    return name if len(name) <= LABEL else f"{name[: LABEL // 4]}…{name[-(LABEL - LABEL // 4 - 1) :]}"


def in_words(rows: Sequence[tuple[str, Mapping[str, Any]]], scale: float, unit: str, *, sign: bool = False) -> str:
    """The same for those who can't see the figure."""
    said = [
        f"{name} {number(e['value'], scale=scale, sign=sign)}{unit} ({interval(e, scale=scale) or 'no interval'})"
        for name, e in rows
    ]
    return "; ".join(said)
