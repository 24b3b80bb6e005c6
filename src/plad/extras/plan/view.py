"""A plan as text of 80 columns."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from plad.report.console import table
from plad.text import fold

if TYPE_CHECKING:
    from rich.console import RenderableType

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan_view(found: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    """Prompts, answers, price, time, memory and disk."""
    yield "prompts: " + ", ".join(f"{split} {n:,}" for split, n in found["prompts"].items())
    if found["done"]:
        yield f"done before: {', '.join(found['done'])}"
    yield from (f"note: {note}" for note in found["notes"])
    yield from _answers(found)
    yield from _price(found)
    yield from _times(found["time"])
    yield from _memory(found)
    kept = {name: n for name, n in found["disk"].items() if n}
    yield f"disk: about {_bytes(sum(kept.values()))} (" + ", ".join(f"{k} {_bytes(n)}" for k, n in kept.items()) + ")"
    yield from found["size_notes"]


def _answers(found: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    rows = [
        (
            f"{line['stage']}: {line['system']}" + ("" if line["system"] == line["split"] else f", {line['split']}"),
            f"{line['new']:,}",
            f"{line['held']:,}" if line["held"] else "",
            _short(line["prompt_tokens"]),
            f"{_short(line['completion_tokens'])} / {_short(line['most_completion_tokens'])}",
            "" if line["usd"] is None else f"{line['usd']:,.2f} / {line['most_usd']:,.2f}",
        )
        for line in found["lines"]
    ]
    columns = ["whose answers", "new", "held", "tokens in", "out / most", "USD / most"]
    yield table("answers still to get, tokens and price: expected / at worst", columns, rows)
    for system, how in found["tokens"].items():
        yield fold(f"tokens of {'the teacher' if system == 'teacher' else 'the student'}'s prompts: {how}")
    by: dict[str, list[str]] = {}
    for line in found["lines"]:
        if line["new"]:
            by.setdefault(line["basis"], []).append(line["system"])
    said = (f"{', '.join(dict.fromkeys(systems))} as {basis} say{_s(basis)}" for basis, systems in by.items())
    if by:
        yield fold(f"expected length of answers: {'; '.join(said)}")


def _s(basis: str) -> str:
    return "" if basis == "the targets" else "s"


def _price(found: Mapping[str, Any]) -> Iterator[str]:
    spent, usd = found["spent"], found["usd"]
    if spent["tokens"]:
        yield f"spent so far: {spent['usd']:,.2f} US dollars, {spent['tokens']:,} tokens"
    if any(line["place"] for line in found["lines"]):
        yield f"price: {usd['expected']:,.2f} US dollars expected, {usd['most']:,.2f} at worst, beside failed attempts"
    for place in found["unpriced"]:
        yield f"{place} has no price: its cost is not counted"
    budget = found["budget"]
    if budget is None:
        return
    limits = ", ".join(f"{name} {budget[name]:,}" for name in ("usd", "tokens") if budget[name] is not None)
    for name, words in (("expected", "as expected"), ("worst", "at worst")):
        stop = budget[name]
        if stop is None:
            yield f"budget ({limits}): enough, {words}"
        else:
            yield (
                f"budget ({limits}): {words}, {stop['limit']} stops the run in {stop['stage']}, after about "
                f"{stop['answers']:,} of {stop['of']:,} answers of {stop['system']}"
            )


def _times(times: list[Mapping[str, Any]]) -> Iterator[str]:
    for t in times:
        if "batches" in t:
            yield (
                f"time: {t['place']}, {t['requests']:,} requests in {t['batches']:,} batches, each within {t['window']}"
            )
        elif t["seconds"] is None:
            yield (
                f"time: {t['place']}, {t['requests']:,} requests: not known before the first answers "
                "(no rpm, no tpm, no latency in the ledger)"
            )
        else:
            latency = f" at {t['latency']:.2f} s an answer" if t["bound_by"] == "concurrency" else ""
            yield (
                f"time: {t['place']}, {t['requests']:,} requests: at least {_duration(t['seconds'])}, "
                f"bound by {t['bound_by']}{latency}"
            )


def _memory(found: Mapping[str, Any]) -> Iterator["RenderableType | str"]:
    rows = [
        (
            row["stage"],
            f"{_short(row['model'])} {row['dtype']}",
            *(_bytes(row[name]) for name in ("weights", "gradients", "optimizer", "activations", "total")),
        )
        for row in found["memory"]
    ]
    if not rows:
        return
    columns = ["stage", "model", "weights", "grads", "AdamW", "activations", "in all"]
    where = "on the GPU" if found["gpu"] else "on the CPU"
    yield table(f"memory of training {where}, beside about 1 GB of the process", columns, rows)


def _short(n: float) -> str:
    return next((f"{n / size:.3g}{unit}" for size, unit in _UNITS if n >= size), f"{n:.0f}")


def _bytes(n: float) -> str:
    return f"{_short(n)}B"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
