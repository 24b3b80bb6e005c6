"""Training curves: small multiples of metrics.jsonl."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from plad.report.plots.plots import SOFT, A, B, Plot, render_svg
from plad.report.wording import number

Points = tuple[list[int], list[float]]
"""Steps and values."""


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
    _Curve(
        "sft/teacher",
        (("win_rate", "win rate"), ("rougeL", "ROUGE-L")),
        "While fine-tuning the teacher: validation",
        "%",
        100.0,
        validation=True,
    ),
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
    _Curve(
        "distill",
        (("ended", "answers that end"), ("accuracy", "pairs in order")),
        "While distilling: ends on validation, order of a few pairs",
        "%",
        100.0,
        validation=True,
    ),
    _Curve(
        "distill",
        (("chosen_logp", "teacher's answer"), ("rejected_logp", "student's answer")),
        "While distilling: log-probability a token of a few pairs",
        "nats",
        validation=True,
    ),
)


def training_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Small multiples of metrics.jsonl; a quantity that no row holds has no figure."""
    plots = []
    for i, (curve, own, lines) in enumerate(_found(rows)):
        bands = _points(own, "low", curve.scale), _points(own, "high", curve.scale)
        with_band = curve.validation and "win rate" in lines
        plots.append(_curve_plot(f"curve-{i}", curve, lines, bands if with_band else None))
    return plots


def rounds_plot(rounds: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Win rates by round, with their intervals: the student's on validation, the teacher's against it."""
    lines: dict[str, list[tuple[int, Mapping[str, Any]]]] = {
        "student against the target": [
            (n, {**r["validation"], "value": r["validation"].get("win_rate")}) for n, r in enumerate(rounds)
        ],
        "teacher against the student": [(n, r["teacher_student"]) for n, r in enumerate(rounds)],
    }
    lines = {name: [(n, e) for n, e in points if e.get("value") is not None] for name, points in lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        axes.axhline(50, color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
        for (name, points), colour in zip(lines.items(), (A, B), strict=False):
            x = [n for n, _ in points]
            low, value, high = ([100 * e[key] for _, e in points] for key in ("low", "value", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, value, color=colour, label=name, marker="o", markersize=4)
        axes.set_xticks(range(len(rounds)))
        axes.set_xlabel("round (0: before distillation)")
        axes.set_ylabel("% won")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, borderaxespad=0.2)

    said = "; ".join(
        f"{name}: " + ", ".join(f"round {n} {number(e['value'], scale=100)} %" for n, e in points)
        for name, points in lines.items()
    )
    return Plot("Win rates by round", render_svg("rounds", 2.7, draw), said)


def training_lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, dict[str, Points]]]:
    """What `training_plots` draws: title, unit, and steps and values by label."""
    return [(curve.title, curve.axis, lines) for curve, _, lines in _found(rows)]


def _found(
    rows: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[_Curve, Sequence[Mapping[str, Any]], dict[str, Points]]]:
    """Every curve that has points, with the rows it comes from."""
    for curve in _CURVES:
        own = [r for r in rows if r.get("stage") == curve.stage and ("validation" in r) == curve.validation]
        own = [{"step": r["step"], **r["validation"]} for r in own] if curve.validation else own
        lines = {name: _points(own, key, curve.scale) for key, name in curve.keys}
        lines = {name: points for name, points in lines.items() if points[0]}
        if lines:
            yield curve, own, lines


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
        for (label, (x, y)), colour in zip(lines.items(), (A, B), strict=False):
            if band and label == "win rate" and len(band[0][0]) == len(band[1][0]) == len(x):
                axes.fill_between(x, band[0][1], band[1][1], color=A, alpha=0.15, linewidth=0)
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
    return Plot(curve.title, render_svg(name, 2.5, draw), f"{'; '.join(said)} {curve.axis}, step 0 to {last}.")
