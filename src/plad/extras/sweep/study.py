"""The study behind a sweep: an Optuna study in a SQLite file, each of whose trials is a run."""

import contextlib
import logging
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plad.config.extras import SweepSection
from plad.errors import MissingExtraError, PladError, RunDirError
from plad.extras.sweep.space import Knob, Space, Suggest, Value
from plad.rundir.atomic import atomic_file

try:
    import optuna
except ImportError:
    raise MissingExtraError("plad sweep needs the package optuna", fix="pip install 'plad[tune]'") from None
from optuna.study import Study
from optuna.trial import Trial, TrialState

log = logging.getLogger("plad")

STUDY = "sweep"
TRIALS = 20
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a study knows of a trial.

    Attributes:
        settings: setting -> value as written in an override.
        figures: on validation rows, of a finished trial.
        same_as: number of a finished trial with the same settings, from which the figures are.
        error: why it failed.
    """

    number: int
    state: TrialState
    value: float
    settings: Mapping[str, str]
    figures: Mapping[str, float | None]
    same_as: int | None
    error: str | None

    @property
    def overrides(self) -> list[str]:
        """The settings as overrides of a config."""
        return [f"{key}={value}" for key, value in self.settings.items()]


def open_study(file: Path, space: Space) -> Study:
    """The study in `file`, made if there is none, with the whole grid waiting if the sweep is one.

    Raises:
        RunDirError: the file is damaged.
    """
    if not file.is_file():
        with atomic_file(file) as temporary, _quiet():
            storage = optuna.storages.RDBStorage(_address(temporary))
            study = optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")
            for combination in space.grid() if space.section.sampler == "grid" else ():
                study.enqueue_trial(combination)
            storage.engine.dispose()
    try:
        with _quiet():
            return optuna.load_study(study_name=STUDY, storage=optuna.storages.RDBStorage(_address(file)))
    except Exception as e:  # Optuna passes on whatever its database layer raises
        raise RunDirError(
            f"can't be read ({type(e).__name__}: {e})", where=str(file), fix="name another sweep.dir"
        ) from e


def _address(file: Path) -> str:
    return f"sqlite:///{file.absolute()}"


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def results(study: Study) -> list[TrialResult]:
    """All trials, in the order of their numbers."""
    rows: list[TrialResult] = []
    for trial in study.get_trials(deepcopy=False):
        known, overrides = trial.user_attrs, trial.user_attrs.get("overrides", [])
        settings: dict[str, str] = dict(o.split("=", 1) for o in overrides)
        figures, same_as, error = known.get("figures", {}), known.get("same_as"), known.get("error")
        value = 0.0 if trial.value is None else trial.value
        rows.append(TrialResult(trial.number, trial.state, value, settings, figures, same_as, error))
    return rows


def finished(study: Study) -> list[TrialResult]:
    """Trials with a value."""
    return [t for t in results(study) if t.state == TrialState.COMPLETE]


def best(study: Study) -> TrialResult | None:
    """The finished trial of highest value; of equals the first."""
    return max(finished(study), key=lambda t: (t.value, -t.number), default=None)


def twin(study: Study, overrides: Sequence[str]) -> TrialResult | None:
    """A finished trial with the same settings."""
    return next((t for t in finished(study) if t.overrides == list(overrides)), None)


def wanted_trials(study: Study, section: SweepSection) -> int:
    """How many trials the sweep has in all."""
    if section.trials is not None:
        return section.trials
    return len(study.get_trials(deepcopy=False)) if section.sampler == "grid" else TRIALS


def next_trial(study: Study, section: SweepSection, seed: int) -> Trial | None:
    """The trial that a stopped sweep left unfinished, or a new one; None where all are finished.

    Every trial has random numbers of its own, so that a resumed sweep suggests what an undisturbed one does.
    """
    trials = study.get_trials(deepcopy=False)
    running = [t for t in trials if t.state == TrialState.RUNNING]
    begun = [t for t in trials if t.state != TrialState.WAITING]
    number = running[0].number if running else len(begun)
    sampler = optuna.samplers.RandomSampler if section.sampler == "random" else optuna.samplers.TPESampler
    study.sampler = sampler(seed=(seed * 1_000_003 + number) % 2**32)
    if running:
        return Trial(study, running[0]._trial_id)  # pyright: ignore[reportPrivateUsage]  # the only way to go on with one
    waiting = len(trials) - len(begun)
    if len(begun) >= wanted_trials(study, section) or (section.sampler == "grid" and not waiting):
        return None
    return study.ask()


def suggestion(trial: Trial) -> Suggest:
    """What `Space.suggest` asks; values that a trial had before it was interrupted come again."""

    def suggest(key: str, knob: Knob) -> Value:
        r = knob.range
        if r is None:
            return trial.suggest_categorical(key, list(knob.choices))
        if knob.kind == "int":
            return trial.suggest_int(key, int(r.low), int(r.high), log=r.log, step=int(r.step or 1))
        return trial.suggest_float(key, r.low, r.high, log=r.log, step=r.step)

    return suggest


def finish(study: Study, trial: Trial, figures: Mapping[str, float | None], value: float) -> None:
    """Record a trial's figures."""
    trial.set_user_attr("figures", dict(figures))
    study.tell(trial, value)
    log.info("trial %d: %.4f, best so far %.4f", trial.number, value, study.best_value)


def fail(study: Study, trial: Trial, error: PladError) -> None:
    """Record that a trial's settings don't work."""
    trial.set_user_attr("error", str(error).splitlines()[0])
    study.tell(trial, state=TrialState.FAIL)
    log.warning("trial %d failed: %s", trial.number, error)
