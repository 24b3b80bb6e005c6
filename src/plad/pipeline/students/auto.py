"""Choice of the objective on validation (Source: PLaD, A.7): every candidate is trained, the best is kept."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from plad.config.objectives import ObjectiveSection
from plad.pipeline.finished import keep_counts
from plad.pipeline.students.student import Start, StudentCounts, StudentJob, train_and_keep, train_student
from plad.pipeline.students.validation import measure_of
from plad.policy.load import Policy, load_policy
from plad.train.validation import Figures, rank, told

log = logging.getLogger("plad")


def labels(candidates: Sequence[ObjectiveSection]) -> list[str]:
    """A short name for each candidate: its type, and what sets it apart from the type's defaults and its like."""
    names: list[str] = []
    for candidate in candidates:
        default = type(candidate)().model_dump(mode="json")
        same = [c.model_dump(mode="json") for c in candidates if c.tag() == candidate.tag()]
        settings = candidate.model_dump(mode="json")
        apart = [k for k in settings if settings[k] != default[k] and any(c[k] != settings[k] for c in same)]
        names.append(" ".join([candidate.tag(), *(f"{key}={_short(settings[key])}" for key in apart)]))
    return names


def _short(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, cast(list[object], value)))
    return f"{value:g}" if isinstance(value, float) else str(value)


def figures_of_best(counts: StudentCounts) -> Figures:
    """The validation of the weights that were kept; empty where nothing validates."""
    best = counts.get("best")
    return best["validation"] if best else {}


def choose_objective(job: StudentJob, start: Start) -> tuple[Policy, StudentCounts]:
    """Train every candidate from the same student; return the best with its counts and everybody's figures."""
    alternatives = job.settings.objective.alternatives
    names = labels(alternatives)
    folders = [job.checkpoints(f"-{label.replace(' ', '-')}-done") for label in names]
    results: list[StudentCounts] = []
    best = 0
    for i, candidate in enumerate(alternatives):
        settings = job.settings.model_copy(update={"objective": candidate})
        single = replace(job, name=f"{job.name}/{names[i]}", settings=settings)
        results.append(train_and_keep(single, start, folders[i]))
        figures = figures_of_best(results[i])
        log.info("%s: %s", names[i], told(figures))
        if i:
            better = rank(figures) > rank(figures_of_best(results[best]))  # the first of equals stays
            keep_counts(folders[best if better else i])
            best = i if better else best
    chosen_by = measure_of(job.resources, job.settings.validation).words
    log.info("kept: %s, by %s", names[best], chosen_by)
    candidates: list[Mapping[str, object]] = [
        {"name": label, "validation": figures_of_best(counts) or None, "seconds": counts.get("seconds")}
        for label, counts in zip(names, results, strict=True)
    ]
    counts = results[best].copy()
    counts.update(stage=f"{job.name}/{names[best]}", chosen=names[best], candidates=candidates, chosen_by=chosen_by)
    return load_policy(job.resources.student, folder=folders[best]), counts


def distilled(job: StudentJob, start: Start) -> tuple[Policy, StudentCounts]:
    """The student that the job makes of the one `start` gives, and counts."""
    if len(job.settings.objective.alternatives) > 1:
        return choose_objective(job, start)
    return train_student(job, start())
