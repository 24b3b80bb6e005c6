"""Samples into ratios, ratios into rows, rows into a table and a file."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from benchmarks.data import Pair, Question
from benchmarks.measure import Sample
from benchmarks.plan import GenerateCell, GenerateRow, Target, TrainCell, TrainRow

MIB = 2**20
SAME_LOSS = 1e-4
"""Relative difference up to which two losses are the same but for rounding."""


def _ratios(name: str, ours: Sequence[Sample], theirs: Sequence[Sample], target: Target | None) -> dict[str, Any]:
    """Speed ours/theirs and memory ours/theirs, with what they were computed from."""
    # the work is the same, so that the ratio of the speeds is that of the times
    speeds = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    out: dict[str, Any] = {
        f"{name}_ratio": statistics.median(speeds),
        f"{name}_ratio_low": min(speeds),
        f"{name}_ratio_high": max(speeds),
        "peak_memory_ratio": None,
        "ours": _raw(ours),
        "theirs": _raw(theirs),
    }
    peaks = [(a.peak, b.peak) for a, b in zip(ours, theirs, strict=True) if a.peak and b.peak]
    if peaks:
        out["peak_memory_ratio"] = max(a for a, _ in peaks) / max(b for _, b in peaks)
    if target is not None:
        memory = out["peak_memory_ratio"]
        out["target"] = {f"{name}_ratio": target.speed, "peak_memory_ratio": target.memory}
        out["met"] = out[f"{name}_ratio"] >= target.speed and (
            target.memory is None or memory is None or memory <= target.memory
        )
    return out


def _raw(samples: Sequence[Sample]) -> dict[str, Any]:
    peaks = [s.peak for s in samples if s.peak is not None]
    return {
        "cpu_seconds": [round(s.seconds, 3) for s in samples],
        "peak_mib": round(max(peaks) / MIB) if peaks else None,
    }


def train_result(
    cell: TrainCell,
    row: TrainRow,
    batches: Sequence[Sequence[Pair]],
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
) -> dict[str, Any]:
    """The row of one comparison of training steps."""
    losses = [(a.values["loss"], b.values["loss"]) for a, b in zip(ours, theirs, strict=True)]
    pairs = [pair for batch in batches for pair in batch]
    return {
        "against": row.against,
        "tuning": "lora" if cell.lora else "full",
        "size": cell.size,
        **_ratios("pairs_per_s", ours, theirs, row.target),
        "max_rel_loss_diff": max(abs(a - b) / abs(a) for a, b in losses) if row.same_loss else None,
        "losses": [a for a, _ in losses],
        "batch_size": cell.batch,
        "n": len(pairs),
        "prompt_tokens": statistics.mean(len(p.prompt) for p in pairs),
        "completion_tokens": statistics.mean(len(c) for p in pairs for c in p.completions),
    }


def generate_result(
    cell: GenerateCell,
    row: GenerateRow,
    questions: Sequence[Question],
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
) -> dict[str, Any]:
    """The row of one comparison of sampling."""
    return {
        "against": row.against,
        "size": cell.size,
        **_ratios("tokens_per_s", ours, theirs, row.target),
        "n": len(questions),
        "prompt_tokens": statistics.mean(len(q.prompt) for q in questions),
        "answer_tokens": statistics.mean(q.answer for q in questions),
    }


def different(results: dict[str, Any]) -> list[str]:
    """What doesn't compute the same loss as plad: a comparison with it says nothing."""
    rows = results["train"]
    return [row["against"] for row in rows if (row["max_rel_loss_diff"] or 0.0) > SAME_LOSS]


def table(results: dict[str, Any], sizes: dict[str, str]) -> Table:
    """The rows as they are printed."""
    out = Table(title="plad compared, one thread, float32: speed above 1 and memory below 1 are better")
    for name in ("plad against", "model", "tuning"):
        out.add_column(name)
    for name in ("speed", "low..high", "target", "memory", "target", "loss differs by", ""):
        out.add_column(name, justify="right")
    for kind, speed in (("train", "pairs_per_s"), ("generate", "tokens_per_s")):
        for row in results[kind]:
            out.add_row(*_cells(row, speed, sizes))
        out.add_section()
    return out


def _cells(row: dict[str, Any], speed: str, sizes: dict[str, str]) -> list[str]:
    target = row.get("target", {})
    memory, most = row["peak_memory_ratio"], target.get("peak_memory_ratio")
    least, loss = target.get(f"{speed}_ratio"), row.get("max_rel_loss_diff")
    verdict = "" if not target else "[green]met[/]" if row["met"] else "[red]missed[/]"
    return [
        row["against"],
        sizes[row["size"]],
        row.get("tuning", "sampling"),
        f"{row[f'{speed}_ratio']:.2f}x",
        f"{row[f'{speed}_ratio_low']:.2f}..{row[f'{speed}_ratio_high']:.2f}",
        "" if least is None else f">= {least:.2f}",
        "" if memory is None else f"{memory:.2f}",
        "" if most is None else f"<= {most:.2f}",
        "" if loss is None else f"{loss:.0e}",
        verdict,
    ]
