"""Choice of the objective on validation (Source: PLaD, A.7): every candidate is trained, the best is kept."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plad.config import AutoObjective, DistillSection
from plad.records import Pair
from plad.stages.context import Context
from plad.stages.student import train_and_keep, train_student

log = logging.getLogger("plad")


def labels(objective: AutoObjective) -> list[str]:
    """A short name for each candidate: its type, and what sets it apart from others of the type."""
    dumps = [c.model_dump(mode="json") for c in objective.candidates]
    names: list[str] = []
    for dump in dumps:
        same = [d for d in dumps if d["type"] == dump["type"]]
        apart = [key for key in dump if any(d[key] != dump[key] for d in same)]
        names.append(" ".join([dump["type"], *(f"{key}={_short(dump[key])}" for key in apart)]))
    return names


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def figures(counts: dict[str, Any]) -> tuple[float, float]:
    """What candidates are compared by: win rate on validation, then ROUGE-L."""
    validation = (counts.get("best") or {}).get("validation", {})
    return (validation.get("win_rate", 0.0), validation.get("rougeL", 0.0))


def choose_objective(
    ctx: Context, name: str, settings: DistillSection, start: Callable[[], Any], pairs: Sequence[Pair], file: Path
) -> tuple[Any, dict[str, Any]]:
    """Train every candidate from the same student; return the best with its counts and everybody's figures."""
    from plad.policy.load import load_policy

    objective = settings.objective
    assert isinstance(objective, AutoObjective)
    found: list[dict[str, Any]] = []
    folders: list[Path] = []
    for label, candidate in zip(labels(objective), objective.candidates, strict=True):
        folders.append(ctx.run / "checkpoints" / f"{name.replace('/', '-')}-{label.replace(' ', '-')}-done")
        own = settings.model_copy(update={"objective": candidate})
        counts = train_and_keep(ctx, f"{name}/{label}", own, start, pairs, folders[-1], file)
        found.append(counts)
        log.info("%s: validation win rate %.1f %%, ROUGE-L %.1f", label, *(100 * v for v in figures(counts)))
    best = max(range(len(found)), key=lambda i: figures(found[i]))  # the first of equals
    names = labels(objective)
    candidates = [
        {"name": label, "validation": (c.get("best") or {}).get("validation"), "seconds": c["seconds"]}
        for label, c in zip(names, found, strict=True)
    ]
    log.info("kept: %s", names[best])
    policy = load_policy(ctx.policy_section("student"), folder=folders[best])
    return policy, {**found[best], "chosen": names[best], "candidates": candidates}


def distilled(
    ctx: Context, name: str, settings: DistillSection, start: Callable[[], Any], pairs: Sequence[Pair], file: Path
) -> tuple[Any, dict[str, Any]]:
    """The student that `settings` make of the one `start` gives, and counts."""
    if isinstance(settings.objective, AutoObjective):
        return choose_objective(ctx, name, settings, start, pairs, file)
    return train_student(ctx, name, settings, start(), pairs, file)
