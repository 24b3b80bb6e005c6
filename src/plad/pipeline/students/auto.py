"""Choice of the objective on validation (Source: PLaD, A.7): every candidate is trained, the best is kept."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plad.config.models import DistillSection
from plad.config.objectives import ObjectiveSection
from plad.pipeline.context import Context
from plad.pipeline.made import keep_counts
from plad.pipeline.students.student import train_and_keep, train_student
from plad.records import Pair

log = logging.getLogger("plad")


def labels(candidates: Sequence[ObjectiveSection]) -> list[str]:
    """A short name for each candidate: its type, and what sets it apart from the type's defaults and its like."""
    names: list[str] = []
    for candidate in candidates:
        default = type(candidate)().model_dump(mode="json")
        same = [c.model_dump(mode="json") for c in candidates if c.tag() == candidate.tag()]
        these = candidate.model_dump(mode="json")
        apart = [key for key in these if these[key] != default[key] and any(o[key] != these[key] for o in same)]
        names.append(" ".join([candidate.tag(), *(f"{key}={_short(these[key])}" for key in apart)]))
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

    candidates = settings.objective.alternatives
    found: list[dict[str, Any]] = []
    folders: list[Path] = []
    names = labels(candidates)
    best = 0
    for i, (label, candidate) in enumerate(zip(names, candidates, strict=True)):
        folders.append(ctx.run / "checkpoints" / f"{name.replace('/', '-')}-{label.replace(' ', '-')}-done")
        own = settings.model_copy(update={"objective": candidate})
        found.append(train_and_keep(ctx, f"{name}/{label}", own, start, pairs, folders[-1], file))
        log.info("%s: validation win rate %.1f %%, ROUGE-L %.1f", label, *(100 * v for v in figures(found[-1])))
        if i:
            better = figures(found[i]) > figures(found[best])  # the first of equals stays
            keep_counts(folders[best if better else i])
            best = i if better else best
    everybody = [
        {"name": label, "validation": (c.get("best") or {}).get("validation"), "seconds": c["seconds"]}
        for label, c in zip(names, found, strict=True)
    ]
    log.info("kept: %s", names[best])
    policy = load_policy(ctx.policy_section("student"), folder=folders[best])
    return policy, {
        **found[best],
        "stage": f"{name}/{names[best]}",
        "chosen": names[best],
        "candidates": everybody,
    }


def distilled(
    ctx: Context, name: str, settings: DistillSection, start: Callable[[], Any], pairs: Sequence[Pair], file: Path
) -> tuple[Any, dict[str, Any]]:
    """The student that `settings` make of the one `start` gives, and counts."""
    if len(settings.objective.alternatives) > 1:
        return choose_objective(ctx, name, settings, start, pairs, file)
    return train_student(ctx, name, settings, start(), pairs, file)
