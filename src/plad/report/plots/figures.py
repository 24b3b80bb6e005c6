"""Figures of an evaluation: win rates, gains by length, lengths, calibration, time."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from plad.evaluate.run import SFT, STUDENT
from plad.report.plots.plots import SOFT, A, B, Plot, dots, in_words, name_rows, render_svg
from plad.report.sections.calibration import MODELS, judges_with_order
from plad.report.sections.tables import judges_of
from plad.report.wording import bin_name, duration, interval, number, order_systems, system_name

ROW = 0.5  # inches a row of dots takes


def _has_value(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, e) for name, e in rows if e.get("value") is not None]


def win_rate_plots(metrics: Mapping[str, Any]) -> list[Plot]:
    """One figure a judge: the win rate of each system against the human target."""
    plots = []
    systems = metrics["systems"]
    for i, judge in enumerate(judges_of(metrics)):
        rows = _has_value([(system_name(s), systems[s]["win_rate"].get(judge, {})) for s in order_systems(systems)])
        if rows:
            svg = render_svg(f"win-{i}", 0.9 + ROW * len(rows), lambda axes, rows=rows: _draw_rates(axes, rows))
            title = f"Win rate against the human target, judge {judge}"
            plots.append(Plot(title, svg, in_words(rows, 100, " %")))
    return plots


def _draw_rates(
    axes: Axes,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    mine: str | None = None,
    axis: str = "% won (dashed: a draw)",
) -> None:
    axes.axvline(50, color=B, linewidth=1.2, linestyle=(0, (4, 3)))
    dots(axes, rows, 100, mine=mine or system_name(STUDENT))
    highs = [e["high"] * 100 for _, e in rows if e.get("high") is not None]
    axes.set_xlim(0, max(60.0, min(100.0, max(highs, default=100.0) + 5)))
    axes.set_xlabel(axis)


def rates_plot(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    mine: str,
    axis: str = "% won (dashed: a draw)",
) -> Plot | None:
    """Shares of anything around 50 %, `mine` in colour; None where there are none."""
    rows = _has_value(rows)
    if not rows:
        return None
    svg = render_svg(name, 0.9 + ROW * len(rows), lambda axes: _draw_rates(axes, rows, mine=mine, axis=axis))
    return Plot(title, svg, in_words(rows, 100, " %"))


def gap_plot(name: str, title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Plot | None:
    """Differences in points, with a line at none; None where there are none."""
    rows = _has_value(rows)
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=B, linewidth=1.2, linestyle=(0, (4, 3)))
        dots(axes, rows, 100, sign=True)
        axes.margins(x=0.12)
        axes.set_xlabel("points (dashed: no difference)")

    return Plot(title, render_svg(name, 0.9 + ROW * len(rows), draw), in_words(rows, 100, " points", sign=True))


def gain_plots(metrics: Mapping[str, Any]) -> list[Plot]:
    """One figure a judge: what distillation gained, by the length of the distilled student's answer.

    Source: PLaD, Figure 3.
    """
    plots = []
    gains = metrics["differences"].get(f"{STUDENT} - {SFT}", {}).get("win_rate", {})
    for i, (judge, gain) in enumerate(gains.items()):
        bins = [(f"{bin_name(b)} (n = {b['n']})", b) for b in gain.get("by_length", ())]
        title = f"Gain by length of the distilled student's answer, judge {judge}"
        if len(_has_value(bins)) > 1 and (plot := gap_plot(f"gain-{i}", title, bins)):
            plots.append(plot)
    return plots


def length_plot(metrics: Mapping[str, Any]) -> Plot | None:
    """How long the answers of each system are: the middle half, the middle nine tenths, the median."""
    systems = metrics["systems"]
    rows = [(system_name(s), (systems[s].get("length") or {}).get("quantiles")) for s in order_systems(systems)]
    rows = [(name, q) for name, q in rows if q]
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        for y, (name, q) in enumerate(reversed(rows)):
            colour = A if name == system_name(STUDENT) else SOFT
            axes.plot([q["p5"], q["p95"]], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([q["p25"], q["p75"]], [y, y], color=colour, linewidth=8, alpha=0.5, solid_capstyle="butt")
            axes.plot([q["p50"]], [y], "o", color=colour, markersize=7)
            axes.text(q["p50"], y + 0.24, number(q["p50"], digits=0), ha="center", va="bottom", fontsize=9)
        name_rows(axes, [name for name, _ in rows])
        axes.set_xlim(left=0)
        axes.margins(x=0.08)
        axes.set_xlabel("words (dot: median, bar: half, line: 90 %)")

    said = "; ".join(
        f"{name}: median {q['p50']:g}, half from {q['p25']:g} to {q['p75']:g}, nine tenths from {q['p5']:g} to "
        f"{q['p95']:g} words"
        for name, q in rows
    )
    return Plot("Length of the answers", render_svg("words", 0.9 + ROW * len(rows), draw), said)


def calibration_plots(metrics: Mapping[str, Any]) -> list[Plot]:
    """A judge's two figures: pairwise accuracy before and after, and the reliability curves."""
    plots: list[Plot | None] = []
    for i, (judge, by) in enumerate(judges_with_order(metrics).items()):
        rows = [(system_name(model), by[model]["pairwise_accuracy"]) for model in MODELS]
        title = f"How often the better of two texts is the likelier one, judge {judge}"
        plots.append(
            rates_plot(f"order-{i}", title, rows, mine=system_name(STUDENT), axis="% of pairs (dashed: a coin)")
        )
        plots.append(_reliability_plot(f"reliable-{i}", judge, {model: by[model]["reliability"] for model in MODELS}))
    return [p for p in plots if p]


def _reliability_plot(name: str, judge: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    lines = {model: [b for b in bins if b["pairs"]] for model, bins in curves.items()}
    if not any(lines.values()):
        return None

    def draw(axes: Axes) -> None:
        end = 100 * max(b["to"] for bins in lines.values() for b in bins)
        axes.plot([50, end], [50, end], color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
        for (model, bins), colour, marker, aside in zip(lines.items(), (B, A), ("s", "o"), (-0.25, 0.25), strict=True):
            x = [100 * b["confidence"] + aside for b in bins]  # beside each other where both are equally sure
            low, value, high = ([100 * b[k] for b in bins] for k in ("low", "value", "high"))
            axes.vlines(x, low, high, color=colour, linewidth=4, alpha=0.35)
            axes.plot(x, value, color=colour, label=system_name(model), marker=marker, markersize=6)
        axes.set_xlim(49, end + 1)
        axes.set_xlabel("% confident (dashed: as right as confident)")
        axes.set_ylabel("% right")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)

    said = "; ".join(
        f"{system_name(model)}: "
        + ", ".join(
            f"{number(b['confidence'], scale=100)} % confident, {number(b['value'], scale=100)} % right "
            f"({interval(b, scale=100)}, {b['pairs']:,} pairs)"
            for b in bins
        )
        for model, bins in lines.items()
    )
    return Plot(f"Confidence and how often it is right, judge {judge}", render_svg(name, 2.9, draw), said)


def time_plot(stages: Mapping[str, Mapping[str, Any]]) -> Plot | None:
    """How long each stage took."""
    rows = [(name, float(s.get("seconds", 0))) for name, s in stages.items() if s.get("seconds", 0) >= 1]
    if len(rows) < 2:
        return None
    unit, name = (3600, "hours") if max(s for _, s in rows) > 7200 else (60, "minutes")

    def draw(axes: Axes) -> None:
        for y, (_, seconds) in enumerate(reversed(rows)):
            axes.barh(y, seconds / unit, color=A, height=0.5)
            axes.annotate(
                duration(seconds), (seconds / unit, y), (4, 0), textcoords="offset points", va="center", fontsize=9
            )
        name_rows(axes, [stage for stage, _ in rows])
        axes.margins(x=0.2)
        axes.set_xlim(left=0)
        axes.set_xlabel(name)

    said = "; ".join(f"{stage} {duration(seconds)}" for stage, seconds in rows)
    return Plot("Time by stage", render_svg("time", 0.7 + 0.36 * len(rows), draw), said)
