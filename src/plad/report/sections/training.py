"""Training: whether the teacher is better, what was chosen on validation, and the curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from plad.evaluate.metrics import Estimate, Metrics
from plad.records import STUDENT
from plad.report.parts.blocks import (
    BETTER,
    Cell,
    Plot,
    Points,
    ReportSection,
    Table,
    Text,
    blocks,
    explained,
    group,
    plots,
)
from plad.report.parts.drawing import SOFT, A, Axes, B
from plad.report.parts.estimates import count_cell, estimate_cell, share_cell
from plad.report.parts.formatting import DASH, harmless, interval, number, system_name
from plad.report.parts.run_facts import LogRow, RunFacts
from plad.report.parts.stage_counts import RoundCounts, Validated

_TEACHER = Text(
    "Distillation calls the teacher's answer the better one. On the distillation prompts it was, as often as this:",
    "95 % interval.",
    tone="",
)
_VALIDATION = ("Validation win rate", "ROUGE-L", "Words", "Ended")


def training(facts: RunFacts) -> ReportSection | None:
    """The teacher against the student, candidates, rounds, curves; None before any of them."""
    ended = rounds_ended(facts)
    about = Text(
        f"Each round the student was sampled again and met the same answers of the teacher. {ended}", ended, tone=""
    )
    by = facts.distill.chosen_by or "win rate"
    candidates = Text(
        f"Each candidate was trained from the same student; the one of best {by} on validation was kept:",
        f"The one of best {by} on validation is kept.",
        tone="",
    )
    chosen = chosen_by(facts)
    shown = blocks(
        explained(teacher_student_table(facts.metrics), _TEACHER),
        Text(chosen, tone="") if chosen else None,
        explained(candidates_table(facts), candidates),
        group("Rounds", explained(rounds_table(facts), about), plots([rounds_plot(facts.distill.rounds)])),
        plots(training_plots(kept_log(facts))),
        [Text(f"On the way, but no longer in the weights that were kept: {s}") for s in facts.distill.withdrawn],
    )
    trained = {STUDENT: facts.distill.alarms, **facts.alarms_of_baselines}
    alarms = tuple(f"{system_name(name)}: {sentence}" for name, found in trained.items() for sentence in found)
    return ReportSection("training", "Training", "Training", shown, alarms) if shown or alarms else None


def chosen_by(facts: RunFacts) -> str:
    """By what the teacher's weights and the student's were chosen on validation; empty where nothing was."""
    sft = facts.counts("sft").get("teacher")
    teacher = sft.get("chosen_by") if isinstance(sft, Mapping) else None
    named = [("the teacher's weights", teacher), ("the student's", facts.distill.chosen_by)]
    known = [f"{whose} by {by}" for whose, by in named if by]
    return f"Chosen on validation: {', '.join(known)}." if known else ""


def teacher_student_table(metrics: Metrics | None) -> Table | None:
    """How often the answer called chosen really was the better one."""
    rates = metrics.teacher_student_win_rate if metrics else {}
    rows = tuple(
        (
            Cell(judge),
            estimate_cell(r, scale=100),
            *map(count_cell, (r.n, r.wins, r.ties, r.losses, r.unjudged)),
        )
        for judge, r in rates.items()
    )
    columns = ("Judge", "Teacher wins (%)", "Prompts", "Wins", "Ties", "Losses", "Unjudged")
    return Table("Teacher against SFT student, on the distillation prompts", columns, rows) if rows else None


def candidates_table(facts: RunFacts) -> Table | None:
    """Every candidate of `objective: auto` with its validation, the kept one marked (Source: PLaD, Table 7)."""
    counts = facts.distill
    rows = tuple(
        (
            Cell(harmless(c.name) + (" (kept)" if c.name == counts.chosen else "")),
            *_validation_cells(c.validation or Validated(), BETTER if c.name == counts.chosen else ""),
            Cell(f"{c.seconds:,.0f} s"),
        )
        for c in counts.candidates
    )
    return Table("Candidates for the objective", ("Candidate", *_VALIDATION, "Training"), rows) if rows else None


def rounds_table(facts: RunFacts) -> Table | None:
    """Every round's student on validation and against the teacher, the kept one marked."""
    rows: list[tuple[Cell, ...]] = []
    for n, of_round in enumerate(facts.distill.rounds):
        kept, rate = n == facts.distill.kept_round, of_round.teacher_student
        pairs = facts.counts("pair").get("pairs") if n == 1 and of_round.pairs is None else of_round.pairs
        rows.append(
            (
                Cell(("SFT student" if n == 0 else f"Round {n}") + (" (kept)" if kept else "")),
                *_validation_cells(of_round.validation, BETTER if kept else ""),
                replace(share_cell(rate.value), detail=interval(rate, scale=100)) if rate.n else Cell(DASH),
                count_cell(pairs if isinstance(pairs, int) else None),
            )
        )
    columns = ("Student", *_VALIDATION, "Teacher wins", "Pairs trained on")
    return Table("Rounds", columns, tuple(rows)) if rows else None


def rounds_ended(facts: RunFacts) -> str:
    """On what teacher and student met, and why no further round was made."""
    rounds = facts.distill.rounds
    if not rounds:
        return ""
    split = {"validation": "validation", "distill": "distillation"}[rounds[0].met_on]
    ended = facts.distill.stopped or "as many were made as were asked for"
    return f"Teacher and student met on {split} prompts, sampled as pairs are. The rounds ended: {ended}."


def _validation_cells(figures: Validated, tone: str = "") -> tuple[Cell, ...]:
    judged = figures.win_rate is not None
    rate = replace(share_cell(figures.win_rate), detail=interval(figures.rate, scale=100), tone=tone if judged else "")
    rouge = replace(share_cell(figures.rougeL), tone="" if judged else tone)
    return (rate, rouge, Cell(number(figures.words)), share_cell(figures.ended))


def rounds_plot(rounds: Sequence[RoundCounts]) -> Plot | None:
    """Win rates by round, with their intervals: the student's on validation, the teacher's against it."""
    lines: dict[str, list[tuple[int, Estimate]]] = {
        "student against the target": [(n, r.validation.rate) for n, r in enumerate(rounds)],
        "teacher against the student": [(n, r.teacher_student) for n, r in enumerate(rounds)],
    }
    lines = {name: [(n, e) for n, e in points if e.value is not None] for name, points in lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        axes.axhline(50, color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
        for (name, points), colour in zip(lines.items(), (A, B), strict=False):
            x = [n for n, _ in points]
            low, value, high = (
                [100 * end for end in ends] for ends in zip(*(_ends(e) for _, e in points), strict=True)
            )
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, value, color=colour, label=name, marker="o", markersize=4)
        axes.set_xticks(range(len(rounds)))
        axes.set_xlabel("round (0: before distillation)")
        axes.set_ylabel("% won")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, borderaxespad=0.2)

    alt = "; ".join(
        f"{name}: " + ", ".join(f"round {n} {number(e.value, scale=100)} %" for n, e in points)
        for name, points in lines.items()
    )
    return Plot("rounds", "Win rates by round", alt, 2.7, draw)


def _ends(e: Estimate) -> tuple[float, float, float]:
    """Low, value, high; the value itself where there is no interval."""
    value = e.value or 0.0
    return (value if e.low is None else e.low, value, value if e.high is None else e.high)


# -- curves -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Curve:
    """A small multiple of metrics.jsonl; `keys` name what is drawn, by the names of the legend."""

    stage: str
    title: str
    unit: str
    keys: Mapping[str, str]
    scale: float = 1.0
    validation: bool = False


_LOSS, _LOGPS = {"loss": "loss"}, {"chosen_logp": "teacher's answer", "rejected_logp": "student's answer"}
_QUALITY = {"win_rate": "win rate", "rougeL": "ROUGE-L"}
_ORDER = {"accuracy": "chosen is likelier", "active": "pair still has a loss"}
_ENDS = {"ended": "answers that end", "accuracy": "pairs in order"}
_CURVES = (
    _Curve("sft/teacher", "Fine-tuning the teacher: loss", "nats a token", _LOSS),
    _Curve("sft/teacher", "While fine-tuning the teacher: validation", "%", _QUALITY, 100.0, validation=True),
    _Curve("sft/student", "Fine-tuning the student: loss", "nats a token", _LOSS),
    _Curve("distill", "Distilling: loss", "loss", _LOSS),
    _Curve("distill", "Distilling: order of the pairs", "% of pairs", _ORDER, 100.0),
    _Curve("distill", "Distilling: log-probability a token", "nats", _LOGPS),
    _Curve("distill", "Distilling: gradient norm", "norm", {"grad_norm": "gradient"}),
    _Curve("distill", "While distilling: validation", "%", _QUALITY, 100.0, validation=True),
    _Curve("distill", "While distilling: length on validation", "words", {"words": "words an answer"}, validation=True),
    _Curve("distill", "While distilling: ends on validation, order of a few pairs", "%", _ENDS, 100.0, validation=True),
    _Curve("distill", "While distilling: log-probability a token of a few pairs", "nats", _LOGPS, validation=True),
)


def kept_log(facts: RunFacts) -> Sequence[LogRow]:
    """Rows of metrics.jsonl, the training run whose student was kept under the name of the stage."""
    kept = facts.distill.stage
    if kept == "distill":
        return facts.log
    others = [row for row in facts.log if row.stage != "distill"]
    return [replace(row, stage="distill") if row.stage == kept else row for row in others]


def training_plots(log: Sequence[LogRow]) -> list[Plot]:
    """Small multiples of metrics.jsonl; a quantity that no row holds has no plot."""
    drawn: list[Plot] = []
    for curve in _CURVES:
        rows = [r for r in log if r.stage == curve.stage and r.validation == curve.validation]
        lines = {name: _points(rows, key, curve.scale) for key, name in curve.keys.items()}
        lines = {name: points for name, points in lines.items() if points[0]}
        if lines:
            ends = _points(rows, "low", curve.scale), _points(rows, "high", curve.scale)
            drawn.append(_curve_plot(f"curve-{len(drawn)}", curve, lines, ends))
    return drawn


def _points(rows: Sequence[LogRow], key: str, scale: float) -> Points:
    kept = [(r.step, r.values[key] * scale) for r in rows if isfinite(r.values.get(key, float("nan")))]
    return [x for x, _ in kept], [y for _, y in kept]


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean over about a twentieth of the curve."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(w) / len(w) for w in windows]


def _curve_plot(name: str, curve: _Curve, lines: Mapping[str, Points], ends: tuple[Points, Points]) -> Plot:
    """One small multiple; `ends` are those of the intervals of a win rate."""

    def draw(axes: Axes) -> None:
        for (label, (x, y)), colour in zip(lines.items(), (A, B), strict=False):
            if curve.validation and label == "win rate" and len(ends[0][0]) == len(ends[1][0]) == len(x):
                axes.fill_between(x, ends[0][1], ends[1][1], color=A, alpha=0.15, linewidth=0)
            if len(x) > 40:
                axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
                axes.plot(x, _smooth(y), color=colour, label=label)
            else:
                axes.plot(x, y, color=colour, label=label, marker="o" if len(x) < 12 else None, markersize=4)
        axes.set_xlabel("step")
        axes.set_ylabel(curve.unit)
        if len(lines) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderaxespad=0.2)

    changes = [
        f"{label}: from {number(y[0], digits=2)} to {number(y[-1], digits=2)}" for label, (_, y) in lines.items()
    ]
    last = max(x[-1] for x, _ in lines.values())
    alt = f"{'; '.join(changes)} {curve.unit}, step 0 to {last}."
    return Plot(name, curve.title, alt, 2.5, draw, lines, curve.unit)
