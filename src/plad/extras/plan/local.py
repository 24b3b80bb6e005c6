"""How long the stages of a run take on this machine, as its models are timed on it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plad.config.base import ROLES, Role
from plad.config.models import ModelSection
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.errors import PladError
from plad.extras.plan.hours import ModelRate, PlannedTraining, StageTime, computed_by, stage_times
from plad.extras.plan.memory import folder_of, model_of
from plad.extras.plan.price import Line

SECONDS = 20.0  # for all models together
LARGEST = {False: 2e9, True: 20e9}  # weights of a model that is loaded for it, on a CPU and on a GPU
ROWS = 16


@dataclass(frozen=True, slots=True)
class LocalTime:
    """What this machine does.

    Attributes:
        rates: by role.
        unknown: why a role has none.
        measured: seconds that this took.
    """

    stages: list[StageTime]
    rates: dict[Role, ModelRate]
    unknown: dict[Role, str]
    measured: float


def local_time(
    config: Config,
    prepared: Prepared,
    base: Path,
    lines: Sequence[Line],
    trainings: Sequence[PlannedTraining],
    *,
    gpu: bool,
    measure: bool,
) -> LocalTime:
    """Time the models that still have something to do here, and tell how long that takes."""
    rates: dict[Role, ModelRate] = {}
    unknown: dict[Role, str] = {}
    wanted: list[Role] = [
        r for r in ROLES if any(t.role == r for t in trainings) or any(computed_by(line) == r for line in lines)
    ]
    began = time.monotonic()
    for role in wanted:
        found = _rate(config, prepared, base, role, SECONDS / len(wanted), gpu=gpu) if measure else "--no-measure"
        if isinstance(found, ModelRate):
            rates[role] = found
            if found.train is None and any(t.role == role for t in trainings):
                unknown[role] = f"no time was left to train it of {SECONDS / len(wanted):g} s"
        else:
            unknown[role] = found
    return LocalTime(list(stage_times(lines, trainings, rates)), rates, unknown, time.monotonic() - began)


def _rate(config: Config, prepared: Prepared, base: Path, role: Role, seconds: float, *, gpu: bool) -> ModelRate | str:
    """The rate of a model, or why there is none."""
    section: ModelSection = config.teacher if role == "teacher" else config.student
    if role == "teacher" and config.teacher.engine.tag() != "transformers":
        return f"engine {config.teacher.engine.tag()} is not timed"
    folder, model = folder_of(section, base), model_of(section, base)
    if folder is None or model is None:
        return f"{section.model} is not on this machine as a folder"
    if model.weights > LARGEST[gpu]:
        return f"{model.weights / 1e9:.1f} billion weights are not loaded for a plan (at most {LARGEST[gpu] / 1e9:g})"
    from plad.extras.plan.rate import Timed, TooSlowError, measure

    trained = role == "student" or config.teacher.sft
    settings = config.sft.settings(role) if trained else None
    lora = config.lora_for(settings, section) if settings is not None else None
    rows = [*prepared.sft, *prepared.distill][: max(ROWS, config.generate.slots)]
    here = section.model_copy(update={"model": str(folder), "revision": None})
    try:
        return measure(Timed(here, rows, config.generate.slots, lora, settings), time.monotonic() + seconds)
    except TooSlowError as e:
        return f"{e} of {seconds:g} s to time its answers"
    except PladError as e:
        return e.what
