"""The study behind a sweep: an Optuna study in a SQLite file, each of whose trials is a run."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plad.config.extras import SweepSection
from plad.errors import MissingExtraError, RunDirError
from plad.extras.sweep.space import Knob, Space
from plad.rundir.directory import atomic_file

STUDY = "sweep"
TRIALS = 20


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("plad sweep needs the package optuna", fix="pip install 'plad[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(file: Path, space: Space) -> Any:
    """The study in `file`, made if there is none, with the whole grid waiting if the sweep is one.

    Raises:
        MissingExtraError: Optuna is not installed.
        RunDirError: the file is damaged.
    """
    optuna = _optuna()
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
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def wanted_trials(study: Any, section: SweepSection) -> int:
    """How many trials the sweep has in all."""
    if section.trials is not None:
        return section.trials
    return len(study.get_trials(deepcopy=False)) if section.sampler == "grid" else TRIALS


def next_trial(study: Any, section: SweepSection, seed: int) -> Any | None:
    """The trial that a stopped sweep left unfinished, or a new one; None where all are finished.

    Every trial has random numbers of its own, so that a resumed sweep suggests what an undisturbed one does.
    """
    optuna = _optuna()
    trials = study.get_trials(deepcopy=False)
    states = optuna.trial.TrialState
    running = [t for t in trials if t.state == states.RUNNING]
    begun = [t for t in trials if t.state != states.WAITING]
    number = running[0].number if running else len(begun)
    sampler = optuna.samplers.RandomSampler if section.sampler == "random" else optuna.samplers.TPESampler
    study.sampler = sampler(seed=(seed * 1_000_003 + number) % 2**32)
    if running:
        return optuna.trial.Trial(study, running[0]._trial_id)
    waiting = len(trials) - len(begun)
    if len(begun) >= wanted_trials(study, section) or (section.sampler == "grid" and not waiting):
        return None
    return study.ask()


def suggestion(trial: Any) -> Any:
    """What `Space.suggest` asks; values that a trial had before it was interrupted come again."""

    def suggest(key: str, knob: Knob) -> Any:
        if knob.kind == "choice":
            return trial.suggest_categorical(key, list(knob.choices))
        r = knob.range
        assert r is not None
        if knob.kind == "int":
            return trial.suggest_int(key, int(r.low), int(r.high), log=r.log, step=int(r.step or 1))
        return trial.suggest_float(key, r.low, r.high, log=r.log, step=r.step)

    return suggest


def finished(study: Any) -> list[Any]:
    """Trials with a value."""
    return [t for t in study.get_trials(deepcopy=False) if t.state == _optuna().trial.TrialState.COMPLETE]


def best(study: Any) -> Any | None:
    """The finished trial of highest value; of equals the first."""
    return max(finished(study), key=lambda t: (t.value, -t.number), default=None)


def twin(study: Any, overrides: list[str]) -> Any | None:
    """A finished trial with the same settings."""
    return next((t for t in finished(study) if t.user_attrs["overrides"] == overrides), None)
