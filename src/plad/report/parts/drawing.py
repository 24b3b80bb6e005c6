"""How plots are drawn: inline SVG, the same bytes for the same numbers, in the colours of the page around it."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

Axes = Any  # matplotlib's take untyped keywords
WIDTH = 4.4  # inches; a phone shows this at three quarters

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


def render_svg(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    """An <svg> element whose ids begin with `name`, `height` inches high."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    style = mpl.rc_context({**_STYLE, "svg.hashsalt": name})  # pyright: ignore[reportUnknownMemberType]  # types lack
    with style, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's own fonts draw the text
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        nothing = dict.fromkeys(("Date", "Creator", "Format"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)  # pyright: ignore[reportUnknownMemberType]  # types lack
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
