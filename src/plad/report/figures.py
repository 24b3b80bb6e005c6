"""Figures as inline SVG: deterministic, without scripts or addresses, in the colours of the page that holds them."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plad.evaluate.run import STUDENT
from plad.report.tables import judges_of
from plad.report.wording import interval, number, order_systems, system_name

WIDTH = 4.4  # inches; a phone shows this at three quarters

# Placeholders that become the page's own colours, so that dark mode needs no second figure.
_INK, _SOFT, _GRID, _A, _B, _C = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _GRID: "--line", _A: "--accent", _B: "--second", _C: "--third"}

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.titlecolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
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


def _render(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    buffer = io.StringIO()
    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
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


def _dots(
    axes: Axes, rows: Sequence[tuple[str, Mapping[str, Any]]], scale: float, *, colour: Callable[[str], str]
) -> None:
    """One line a system: a dot at its value, a bar over its interval, the figure beside it."""
    for y, (system, e) in enumerate(reversed(rows)):
        value = e["value"] * scale
        low, high = (value if e.get(k) is None else e[k] * scale for k in ("low", "high"))
        axes.plot(
            [low, high], [y, y], color=colour(system), linewidth=5, alpha=0.35, solid_capstyle="round", clip_on=False
        )
        axes.plot([value], [y], "o", color=colour(system), markersize=7, clip_on=False)
        axes.text(value, y + 0.24, number(e["value"], scale=scale), ha="center", va="bottom", fontsize=9)
    axes.set_yticks(range(len(rows)), [system_name(s) for s, _ in reversed(rows)])
    axes.tick_params(axis="y", length=0, labelcolor=_INK)
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _colour(system: str) -> str:
    return _A if system == STUDENT else _SOFT


def _alt(rows: Sequence[tuple[str, Mapping[str, Any]]], scale: float, unit: str) -> str:
    said = [
        f"{system_name(s)} {number(e['value'], scale=scale)}{unit} ({interval(e, scale=scale) or 'no interval'})"
        for s, e in rows
    ]
    return "; ".join(said)


def win_rate_plots(metrics: Mapping[str, Any]) -> list[Plot]:
    """One figure a judge: the win rate of each system against the human target."""
    plots = []
    for i, judge in enumerate(judges_of(metrics)):
        systems = metrics["systems"]
        rows = [(s, systems[s]["win_rate"].get(judge, {})) for s in order_systems(systems)]
        rows = [(s, e) for s, e in rows if e.get("value") is not None]
        if not rows:
            continue

        def draw(axes: Axes, rows: list[tuple[str, Mapping[str, Any]]] = rows) -> None:
            axes.axvline(50, color=_B, linewidth=1.2, linestyle=(0, (4, 3)))
            _dots(axes, rows, 100, colour=_colour)
            highs = [e["high"] * 100 for _, e in rows if e.get("high") is not None]
            axes.set_xlim(0, max(60.0, min(100.0, max(highs, default=100.0) + 5)))
            axes.set_xlabel("% won (dashed: a draw)")

        title = f"Win rate against the human target, judge {judge}"
        alt = _alt(rows, 100, " %")
        plots.append(Plot(title, _render(f"win-{i}", 0.9 + 0.5 * len(rows), draw), alt))
    return plots


def length_plot(metrics: Mapping[str, Any]) -> Plot | None:
    """Mean words of each system's answers."""
    systems = metrics["systems"]
    rows = [(s, systems[s].get("words", {})) for s in order_systems(systems)]
    rows = [(s, e) for s, e in rows if e.get("value") is not None]
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        _dots(axes, rows, 1.0, colour=_colour)
        axes.set_xlim(left=0)
        axes.margins(x=0.08)
        axes.set_xlabel("mean words an answer")

    return Plot("Length of the answers", _render("words", 0.9 + 0.5 * len(rows), draw), _alt(rows, 1.0, " words"))


@dataclass(frozen=True, slots=True)
class _Curve:
    stage: str
    keys: tuple[tuple[str, str], ...]  # key in metrics.jsonl, name in the legend
    title: str
    axis: str
    scale: float = 1.0
    validation: bool = False


_CURVES = (
    _Curve("sft/teacher", (("loss", "loss"),), "Fine-tuning the teacher: loss", "nats a token"),
    _Curve("sft/student", (("loss", "loss"),), "Fine-tuning the student: loss", "nats a token"),
    _Curve("distill", (("loss", "loss"),), "Distilling: loss", "loss"),
    _Curve(
        "distill",
        (("accuracy", "chosen is likelier"), ("active", "pair still has a loss")),
        "Distilling: order of the pairs",
        "% of pairs",
        100.0,
    ),
    _Curve(
        "distill",
        (("chosen_logp", "teacher's answer"), ("rejected_logp", "student's answer")),
        "Distilling: log-probability a token",
        "nats",
    ),
    _Curve("distill", (("grad_norm", "gradient"),), "Distilling: gradient norm", "norm"),
    _Curve(
        "distill",
        (("win_rate", "win rate"), ("rougeL", "ROUGE-L")),
        "While distilling: validation",
        "%",
        100.0,
        validation=True,
    ),
    _Curve(
        "distill",
        (("words", "words an answer"),),
        "While distilling: length on validation",
        "words",
        validation=True,
    ),
)


def training_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Small multiples of metrics.jsonl; a quantity that no row holds has no figure."""
    plots = []
    for i, curve in enumerate(_CURVES):
        own = [r for r in rows if r.get("stage") == curve.stage and ("validation" in r) == curve.validation]
        own = [{"step": r["step"], **r["validation"]} for r in own] if curve.validation else own
        lines = {name: _points(own, key, curve.scale) for key, name in curve.keys}
        lines = {name: points for name, points in lines.items() if points[0]}
        if lines:
            bands = _points(own, "low", curve.scale), _points(own, "high", curve.scale)
            with_band = curve.validation and "win rate" in lines
            plots.append(_curve_plot(f"curve-{i}", curve, lines, bands if with_band else None))
    return plots


Points = tuple[list[int], list[float]]


def _points(rows: Sequence[Mapping[str, Any]], key: str, scale: float) -> Points:
    kept = [(int(r["step"]), float(r[key]) * scale) for r in rows if isinstance(r.get(key), int | float)]
    kept = [(x, y) for x, y in kept if y == y and abs(y) != float("inf")]
    return [x for x, _ in kept], [y for _, y in kept]


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean over about a twentieth of the curve."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(w) / len(w) for w in windows]


def _curve_plot(name: str, curve: _Curve, lines: Mapping[str, Points], band: tuple[Points, Points] | None) -> Plot:
    def draw(axes: Axes) -> None:
        for (label, (x, y)), colour in zip(lines.items(), (_A, _B), strict=False):
            if band and label == "win rate" and len(band[0][0]) == len(band[1][0]) == len(x):
                axes.fill_between(x, band[0][1], band[1][1], color=_A, alpha=0.15, linewidth=0)
            if len(x) > 40:
                axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
                axes.plot(x, _smooth(y), color=colour, label=label)
            else:
                axes.plot(x, y, color=colour, label=label, marker="o" if len(x) < 12 else None, markersize=4)
        axes.set_xlabel("step")
        axes.set_ylabel(curve.axis)
        if len(lines) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)

    said = [f"{label}: from {number(y[0], digits=2)} to {number(y[-1], digits=2)}" for label, (_, y) in lines.items()]
    last = max(x[-1] for x, _ in lines.values())
    return Plot(curve.title, _render(name, 2.5, draw), f"{'; '.join(said)} {curve.axis}, step 0 to {last}.")
