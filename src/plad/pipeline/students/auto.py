"""Choice of the objective on validation (Source: PLaD, A.7): every candidate is trained, the best is kept."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plad.config.models import DistillSection
from plad.config.objectives import AutoObjective
from plad.pipeline.context import Context
from plad.pipeline.made import keep_counts
from plad.pipeline.students.student import train_and_keep, train_student
from plad.records import Pair

log = logging.getLogger("plad")


def labels(objective: AutoObjective) -> list[str]:
    """A short name for each candidate: its type, and what sets it apart from the type's defaults and its like."""
    names: list[str] = []
    for candidate in objective.candidates:
        default = type(candidate)().model_dump(mode="json")
        same = [c.model_dump(mode="json") for c in objective.candidates if c.type == candidate.type]
        own = candidate.model_dump(mode="json")
        apart = [key for key in own if own[key] != default[key] and any(other[key] != own[key] for other in same)]
        names.append(" ".join([candidate.type, *(f"{key}={_short(own[key])}" for key in apart)]))
    return names


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    names = labels(objective)
    best = 0
    for i, (label, candidate) in enumerate(zip(names, objective.candidates, strict=True)):
        folders.append(ctx.run / "checkpoints" / f"{name.replace('/', '-')}-{label.replace(' ', '-')}-done")
        own = settings.model_copy(update={"objective": candidate})
        found.append(train_and_keep(ctx, f"{name}/{label}", own, start, pairs, folders[-1], file))
        log.info("%s: validation win rate %.1f %%, ROUGE-L %.1f", label, *(100 * v for v in figures(found[-1])))
        if i:
            better = figures(found[i]) > figures(found[best])  # the first of equals stays
            keep_counts(folders[best if better else i])
            best = i if better else best
    candidates = [
        {"name": label, "validation": (c.get("best") or {}).get("validation"), "seconds": c["seconds"]}
        for label, c in zip(names, found, strict=True)
    ]
    log.info("kept: %s", names[best])
    policy = load_policy(ctx.policy_section("student"), folder=folders[best])
    return policy, {**found[best], "stage": f"{name}/{names[best]}", "chosen": names[best], "candidates": candidates}


def distilled(
    ctx: Context, name: str, settings: DistillSection, start: Callable[[], Any], pairs: Sequence[Pair], file: Path
) -> tuple[Any, dict[str, Any]]:
    """The student that `settings` make of the one `start` gives, and counts."""
    if isinstance(settings.objective, AutoObjective):
        return choose_objective(ctx, name, settings, start, pairs, file)
    return train_student(ctx, name, settings, start(), pairs, file)
