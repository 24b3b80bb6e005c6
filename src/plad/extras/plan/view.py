"""A plan as text of 80 columns."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from plad.extras.plan.local import LocalTime
from plad.extras.plan.memory import StageMemory
from plad.extras.plan.price import BatchTime, Line, PacedTime
from plad.extras.plan.run import BudgetOutlook, Plan
from plad.progress import duration
from plad.report.console import table
from plad.text import fold

if TYPE_CHECKING:
    from rich.console import RenderableType

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan_view(plan: Plan) -> Iterator["RenderableType | str"]:
    """Prompts, answers, price, time, memory and disk."""
    yield "prompts: " + ", ".join(f"{split} {n:,}" for split, n in plan.prompts.items())
    if plan.done:
        yield f"done before: {', '.join(plan.done)}"
    yield from (f"note: {note}" for note in plan.notes)
    yield _answers(plan.lines)
    for system, how in plan.tokens.items():
        yield fold(f"tokens of {'the teacher' if system == 'teacher' else 'the student'}'s prompts: {how}")
    yield from _expected_lengths(plan.lines)
    yield from _price(plan)
    if plan.budget is not None:
        yield from _budget(plan.budget)
    yield from map(_time, plan.time)
    if plan.here.stages:
        yield from _here(plan.here)
    if plan.memory:
        yield _memory(plan.memory, "on the GPU" if plan.gpu else "on the CPU")
    kept = {name: n for name, n in plan.disk.items() if n}
    yield f"disk: about {_bytes(sum(kept.values()))} (" + ", ".join(f"{k} {_bytes(n)}" for k, n in kept.items()) + ")"
    if plan.weights:
        named = ", ".join(f"{name} {_bytes(n)}" for name, n in plan.weights.items())
        yield fold(f"beside the models themselves, which are here: {named}")
    yield from plan.size_notes


def _answers(lines: Iterable[Line]) -> "RenderableType":
    rows = [
        (
            f"{line.stage}: {line.system}" + ("" if line.system == line.split else f", {line.split}"),
            f"{line.new:,}",
            f"{line.held:,}" if line.held else "",
            _short(line.prompt_tokens),
            f"{_short(line.completion_tokens)} / {_short(line.most_completion_tokens)}",
            "" if line.usd is None else f"{line.usd:,.2f} / {line.most_usd:,.2f}",
        )
        for line in lines
    ]
    columns = ["whose answers", "new", "held", "tokens in", "out / most", "USD / most"]
    return table("answers still to get, tokens and price: expected / at worst", columns, rows)


def _expected_lengths(lines: Iterable[Line]) -> Iterator[str]:
    systems: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.new:
            systems.setdefault(line.basis, {})[line.system] = None
    says = {"the targets": "say"}
    parts = (f"{', '.join(names)} as {basis} {says.get(basis, 'says')}" for basis, names in systems.items())
    if systems:
        yield fold(f"expected length of answers: {'; '.join(parts)}")


def _price(plan: Plan) -> Iterator[str]:
    if plan.spent.tokens:
        yield f"spent so far: {plan.spent.usd:,.2f} US dollars, {plan.spent.tokens:,} tokens"
    if any(line.place for line in plan.lines):
        usd = plan.usd
        yield f"price: {usd.expected:,.2f} US dollars expected, {usd.most:,.2f} at worst, beside failed attempts"
    for place in plan.unpriced:
        yield f"{place} has no price: its cost is not counted"


def _budget(budget: BudgetOutlook) -> Iterator[str]:
    limits = {"usd": budget.usd, "tokens": budget.tokens}
    named = ", ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit is not None)
    for stop, words in ((budget.expected, "as expected"), (budget.worst, "at worst")):
        if stop is None:
            yield f"budget ({named}): enough, {words}"
        else:
            yield (
                f"budget ({named}): {words}, {stop.limit} stops the run in {stop.stage}, after about "
                f"{stop.answers:,} of {stop.of:,} answers of {stop.system}"
            )


def _time(t: PacedTime | BatchTime) -> str:
    asked = f"time: {t.place}, {t.requests:,} requests"
    if isinstance(t, BatchTime):
        return f"{asked} in {t.batches:,} batches, each within {t.window}"
    if t.seconds is None:
        return f"{asked}: not known before the first answers (no rpm, no tpm, no latency in the ledger)"
    latency = f" at {t.latency:.2f} s an answer" if t.bound_by == "concurrency" else ""
    return f"{asked}: at least {duration(t.seconds)}, bound by {t.bound_by}{latency}"


def _memory(stages: Iterable[StageMemory], where: str) -> "RenderableType":
    stages = list(stages)
    beside = any(m.teacher for m in stages)  # the column is there where an objective on logits needs it
    rows = [
        (
            m.stage,
            f"{_short(m.model)} {m.dtype}",
            *map(_bytes, (m.weights, m.gradients, m.optimizer, m.activations)),
            *([_bytes(m.teacher) if m.teacher else ""] if beside else []),
            _bytes(m.total),
        )
        for m in stages
    ]
    columns = ["stage", "model", "weights", "grads", "AdamW", "activations"]
    columns += [*(["teacher"] if beside else []), "in all"]
    return table(f"memory of training {where}, beside about 1 GB of the process", columns, rows)


def _short(n: float) -> str:
    return next((f"{n / size:.3g}{unit}" for size, unit in _UNITS if n >= size), f"{n:.0f}")


def _bytes(n: float) -> str:
    return f"{_short(n)}B"


def _here(time: LocalTime) -> "Iterator[RenderableType | str]":
    """Seconds of each stage on this machine, and what is known of the models."""

    def told(seconds: float | None) -> str:
        return "unknown" if seconds is None else duration(seconds) if seconds else ""

    rows = [(t.stage, told(t.training), told(t.answers), told(t.total)) for t in time.stages]
    parts = [part for t in time.stages for part in (t.training, t.answers)]
    known = sum(part for part in parts if part is not None)
    more = " + unknown" * (None in parts)
    rows.append(("in all", "", "", f"{duration(known)}{more}" if known else more.removeprefix(" + ")))
    yield table("time on this machine, as busy as it is now", ["stage", "training", "answers", "in all"], rows)
    for role, rate in time.rates.items():
        trains = "" if rate.train is None else f", trains on {1 / rate.train:,.0f} a second"
        yield (
            f"the {role} reads {1 / rate.prompt:,.0f} tokens a second and writes {1 / rate.answer:,.0f} "
            f"({rate.slots} answers at once){trains}"
        )
    yield from (f"the {role}'s rate is unknown: {why}" for role, why in time.unknown.items())
    if time.rates:
        yield f"measured in {time.measured:.0f} s; judges, likelihoods and pairs that are dropped are not counted"
