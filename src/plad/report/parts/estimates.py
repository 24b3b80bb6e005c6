"""How an estimate with its interval is shown: as a cell, as a dot in a plot, in words."""

from collections.abc import Mapping, Sequence

from plad.evaluate.metrics import Difference, Estimate, LengthBin
from plad.evaluate.stats import SMALL
from plad.report.parts.blocks import BETTER, SAME, UNKNOWN, WORSE, Cell, Plot
from plad.report.parts.drawing import INK, SOFT, A, Axes, B
from plad.report.parts.formatting import DASH, harmless, interval, number, p_value

SIGNIFICANT = 0.05
LABEL = 28  # characters of a row's name in a plot
ROW = 0.5  # inches a row of dots takes
_DASHES = (0, (4, 3))


HasValue = Estimate | LengthBin
"""A figure over `n` prompts; None where there is none."""


def p_of(e: HasValue | None) -> float | None:
    """Two-sided p-value of "there is no difference"; None where it was not tested."""
    return e.p if isinstance(e, Difference | LengthBin) else None


def tone_of(e: HasValue | None) -> str:
    """better or worse only where the interval excludes 0 and p is below 0.05."""
    p = p_of(e)
    if e is None or e.value is None or e.low is None or e.high is None or p is None:
        return UNKNOWN
    if p >= SIGNIFICANT or e.low <= 0 <= e.high:
        return SAME
    return BETTER if e.value > 0 else WORSE


def evidence(e: HasValue) -> str:
    """Interval and p-value of a difference of two shares."""
    band = interval(e, scale=100, sign=True)
    return ", ".join(x for x in (f"95 % interval {band}" if band else "", p_value(p_of(e))) if x)


def points_apart(value: float) -> str:
    """`3.2 points more`: a difference of two shares."""
    return f"{number(abs(value), scale=100)} points {'less' if value < 0 else 'more'}"


def estimate_cell(e: HasValue | None, *, scale: float = 1.0, digits: int = 1) -> Cell:
    """A figure with its interval, and with its n where that is small."""
    if e is None or e.value is None:
        return Cell(DASH)
    small = f" n = {e.n}" if e.n < SMALL else ""
    return Cell(number(e.value, scale=scale, digits=digits), interval(e, scale=scale, digits=digits) + small)


def difference_cell(e: HasValue | None, scale: float, *, judged: bool = True, digits: int = 1) -> Cell:
    """A difference with interval and p-value, in colour where both say so and `judged` is set."""
    if e is None or e.value is None:
        return Cell(DASH)
    band = interval(e, scale=scale, digits=digits, sign=True)
    parts = [band, p_value(p_of(e)), f"n = {e.n}" if e.n < SMALL else ""]
    tone = tone_of(e) if judged else ""
    return Cell(
        number(e.value, scale=scale, digits=digits, sign=True),
        ", ".join(p for p in parts if p),
        tone if tone in (BETTER, WORSE) else "",
    )


def share_cell(value: float | None) -> Cell:
    """A share in %."""
    return Cell(DASH if value is None else f"{number(value, scale=100)} %")


def count_cell(n: int | None) -> Cell:
    """A count with its thousands apart."""
    return Cell(DASH if n is None else f"{n:,}")


def by_judge(name: str, judge: str, judges: Mapping[str, object]) -> str:
    """A row's name; the judge stands in it where there are several."""
    return name if len(judges) == 1 else f"{name}, {harmless(judge)}"


Row = tuple[str, HasValue | None]
"""A row of dots: its name, and its figure."""


def rates_plot(
    name: str, title: str, rows: Sequence[Row], *, mine: str, axis: str = "% won (dashed: a draw)"
) -> Plot | None:
    """Shares of anything around 50 %, `mine` in colour; None where there are none."""
    dots = _Dots.of(rows)
    if dots is None:
        return None

    def draw(axes: Axes) -> None:
        axes.axvline(50, color=B, linewidth=1.2, linestyle=_DASHES)
        dots.draw(axes, mine=mine)
        highs = [e.high * 100 for _, _, e in dots.rows if e.high is not None]
        axes.set_xlim(0, max(60.0, min(100.0, max(highs, default=100.0) + 5)))
        axes.set_xlabel(axis)

    return Plot(name, title, dots.in_words(" %"), dots.height, draw)


def gap_plot(name: str, title: str, rows: Sequence[Row]) -> Plot | None:
    """Differences in points, with a line at none; None where there are none."""
    dots = _Dots.of(rows, sign=True)
    if dots is None:
        return None

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=B, linewidth=1.2, linestyle=_DASHES)
        dots.draw(axes)
        axes.margins(x=0.12)
        axes.set_xlabel("points (dashed: no difference)")

    return Plot(name, title, dots.in_words(" points"), dots.height, draw)


class _Dots:
    """One line a row: a dot at its value, a bar over its interval, the figure beside it; all in %."""

    def __init__(self, rows: Sequence[tuple[str, float, HasValue]], *, sign: bool) -> None:
        self.rows, self._sign = rows, sign
        self.height = 0.9 + ROW * len(rows)

    @classmethod
    def of(cls, rows: Sequence[Row], *, sign: bool = False) -> "_Dots | None":
        """Of the rows that have a value; None without any."""
        known = [(name, e.value, e) for name, e in rows if e is not None and e.value is not None]
        return cls(known, sign=sign) if known else None

    def draw(self, axes: Axes, *, mine: str | None = None) -> None:
        """The dots with the names of their rows, `mine` in colour."""
        for y, (name, value, e) in enumerate(reversed(self.rows)):
            colour = A if name == mine else SOFT
            low, high = (100 * (value if end is None else end) for end in (e.low, e.high))
            axes.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round", clip_on=False)
            axes.plot([100 * value], [y], "o", color=colour, markersize=7, clip_on=False)
            label = number(value, scale=100, sign=self._sign)
            axes.text(100 * value, y + 0.24, label, ha="center", va="bottom", fontsize=9)
        name_rows(axes, [name for name, _, _ in self.rows])

    def in_words(self, unit: str) -> str:
        """The same for those who can't see the plot."""
        return "; ".join(
            f"{name} {number(value, scale=100, sign=self._sign)}{unit} ({interval(e, scale=100) or 'no interval'})"
            for name, value, e in self.rows
        )


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of the rows from the top down, on an axis without a line."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names[::-1]])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _short(name: str) -> str:
    """A name that leaves room for the plot; the end of a path tells more than its beginning."""
    return name if len(name) <= LABEL else f"{name[: LABEL // 4]}…{name[-(LABEL - LABEL // 4 - 1) :]}"
