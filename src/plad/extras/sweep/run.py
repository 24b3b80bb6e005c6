"""Running a sweep: one trial after the other, each a run directory that shares what it can with those before it."""

import contextlib
import gc
import json
import logging
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from plad.config.extras import SweepSection
from plad.config.root import Config
from plad.data.prepare import check
from plad.errors import ConfigError, DataError, DivergedError, PladError, RunDirError, join
from plad.extras.sweep import study as studies
from plad.extras.sweep.report import write_report
from plad.extras.sweep.space import Space
from plad.extras.sweep.study import Study, Trial
from plad.judges.measure import NOTHING, Measure, by_rouge, of_weights
from plad.pipeline import run as pipeline
from plad.pipeline.resources import Resources
from plad.pipeline.stage import clean, up_to
from plad.policy.fingerprint import as_known_before
from plad.rundir.atomic import atomic_file, write_json
from plad.rundir.config_files import write_config
from plad.rundir.directory import RunDir, check_place, open_run
from plad.rundir.fingerprint import differences
from plad.rundir.lock import acquire
from plad.rundir.manifest import FINGERPRINTS, Manifest, read_manifest

log = logging.getLogger("plad")

SCHEMA = 1
LEDGER = "generations.sqlite"
LAST = "distill"  # a trial is judged by validation rows: the test rows stay untouched


class _Best(BaseModel):
    """The weights that a trial kept."""

    step: int
    validation: dict[str, int | float | None]


@dataclass
class Sweep:
    """An open, locked sweep. Use `open_sweep` to get one.

    Attributes:
        folder: the sweep's directory; trials are run directories below it.
        base: where relative model and data paths start.
        measure: what trials are compared by.
    """

    space: Space
    config: Config
    folder: Path
    base: Path
    measure: Measure
    skip_invalid: bool
    verify: str | None

    @property
    def section(self) -> SweepSection:
        """What to try."""
        return self.space.section

    def trial(self, number: int) -> Path:
        """The run directory of a trial."""
        return self.folder / f"trials/{number}"

    def place(self, number: int) -> list[str]:
        """Overrides that put a trial into its directory, its answers into the ledger that all trials share."""
        ledger = self.config.generate.ledger or self.folder / LEDGER
        return [f"run.dir={json.dumps(str(self.trial(number)))}", f"generate.ledger={json.dumps(str(ledger))}"]


@contextlib.contextmanager
def open_sweep(space: Space, *, skip_invalid: bool = False, verify: str | None = None) -> Generator[Sweep]:
    """Check a sweep before anything is trained, and create or resume its directory, locked.

    Raises:
        PladError: everything that is wrong with its space and its data, all of it at once.
        RunDirError: the place is unfit, in use, or was started with other settings.
    """
    config, base = space.load(), space.path.parent
    measure, found = _yardstick(config, space.section, base, skip_invalid)
    problems = [*space.check(), *found]
    if problems:
        raise join(problems)
    if measure.name != space.section.metric:
        space = replace(space, section=space.section.model_copy(update={"metric": measure.name}))
    folder = space.section.dir or config.run.dir.with_name(f"{config.run.dir.name}-sweep")
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(space, config, folder, base, measure, skip_invalid, verify)
    with contextlib.closing(acquire(folder)):
        _check_settings(folder, _inputs(sweep))
        yield sweep


def _yardstick(
    config: Config, section: SweepSection, base: Path, skip_invalid: bool
) -> tuple[Measure, list[PladError]]:
    """What trials are compared by, and why they can't be."""
    if config.distill.validation.evaluations == 0 or config.distill.validation.keep != "best":
        fix = "distill.validation.evaluations above 0, distill.validation.keep=best"
        return NOTHING, [ConfigError("trials are compared by their best weights on validation", where="sweep", fix=fix)]
    prepared, problems = check(config, base=base, skip_invalid=skip_invalid)
    if prepared is None:
        return NOTHING, problems
    rows = prepared.validation[: config.distill.validation.rows]
    if not rows:
        return NOTHING, [ConfigError("trials are compared on validation rows: there are none", where="data.validation")]
    measure = of_weights([judge.placed(base) for judge in config.evaluate.judges], rows)
    if "metric" not in section.model_fields_set or section.metric == measure.name:
        return measure, []
    if section.metric == "win_rate":
        what = "the first judge can't compare most validation rows with their target: they have no reference beside it"
        return NOTHING, [ConfigError(what, where="sweep.metric", fix="metric: rougeL\nor another first judge")]
    return by_rouge(max(len(e.references) for e in rows)), []


def _check_folder(folder: Path) -> None:
    if (folder / "sweep.json").is_file():
        return
    if (folder / "manifest.json").is_file():
        raise RunDirError("is a run", where=f"sweep.dir={folder}", fix="name another sweep.dir")
    check_place(folder)


def _inputs(sweep: Sweep) -> dict[str, Any]:
    """All that the figures of a trial depend on beside its own settings."""
    run = RunDir(sweep.folder, Manifest(fingerprints=FINGERPRINTS))
    resources = Resources(sweep.config, run, sweep.base, sweep.skip_invalid, sweep.verify)
    return {
        **{stage.name: stage.work.inputs(resources) for stage in up_to(LAST)},
        "sweep": sweep.section.shaping(),
    }


def _check_settings(folder: Path, inputs: Mapping[str, Any]) -> None:
    file = folder / "sweep.json"
    now = json.loads(json.dumps(inputs, default=str))
    if not file.is_file():
        write_json(file, {"schema": SCHEMA, "inputs": now})
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = "; ".join(differences(before["inputs"], now))
    if changed and before["inputs"] == json.loads(json.dumps(as_known_before(inputs), default=str)):
        changed = ""  # of an older version
    if before["schema"] != SCHEMA or changed:
        raise RunDirError(
            f"the sweep was started with other settings: {changed or 'another version of plad'}",
            where=str(folder),
            fix="sweep.dir=NEW starts another\nor put the setting back",
        )


def run_sweep(sweep: Sweep) -> Study:
    """Run the trials that are not finished yet.

    Raises:
        PladError: anything that a single trial's settings are not to blame for; the same command continues.
    """
    study = studies.open_study(sweep.folder / "study.sqlite", sweep.space)
    log.info("trials are compared by %s, of their best weights on validation", sweep.measure.words)
    _start_ledger(sweep)
    for left_over in sweep.folder.glob(".*.tmp*"):
        left_over.unlink()
    while True:
        _keep_best(sweep, study)
        write_report(sweep.folder, study, sweep.space, sweep.place, sweep.measure)
        trial = studies.next_trial(study, sweep.section, sweep.config.run.seed)
        if trial is None:
            return study
        _run_trial(sweep, study, trial)
        gc.collect()


def _start_ledger(sweep: Sweep) -> None:
    """One ledger for all trials, with what the run of the same config has recorded already."""
    file, known = sweep.folder / LEDGER, sweep.config.run.dir / LEDGER
    if sweep.config.generate.ledger is not None or file.is_file() or not known.is_file():
        return
    with (
        atomic_file(file) as temporary,
        contextlib.closing(sqlite3.connect(f"{known.absolute().as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(temporary)) as target,
    ):
        source.backup(target)


def _run_trial(sweep: Sweep, study: Study, trial: Trial) -> None:
    number, folder = trial.number, sweep.trial(trial.number)
    try:
        overrides = sweep.space.suggest(studies.suggestion(trial))
    except PladError as e:
        studies.fail(study, trial, e)
        return
    trial.set_user_attr("overrides", overrides)
    log.info("trial %d of %d: %s", number, studies.wanted_trials(study, sweep.section), ", ".join(overrides))
    twin = studies.twin(study, overrides)
    if twin is not None:
        trial.set_user_attr("same_as", twin.number)
        studies.finish(study, trial, twin.figures, twin.value)
        return
    try:
        figures = _figures(sweep, number, overrides)
    except PladError as e:
        if not _settings_are_to_blame(e, folder):
            raise
        studies.fail(study, trial, e)
        return
    value = figures.get(sweep.section.metric)
    if value is None:
        raise ConfigError(f"validation gave no {sweep.section.metric}", where=str(folder), fix="another sweep.metric")
    studies.finish(study, trial, figures, value)


def _figures(sweep: Sweep, number: int, overrides: Sequence[str]) -> dict[str, float | None]:
    """Run a trial up to its student; returns the validation figures of its best weights."""
    folder, config = sweep.trial(number), sweep.space.load([*overrides, *sweep.place(number)])
    earlier = sorted((sweep.folder / "trials").glob("*"), key=lambda p: int(p.name))
    donors = [sweep.config.run.dir, *(p for p in earlier if p != folder)]
    with open_run(folder) as run:
        with write_config(run, sweep.space.path, config):
            pipeline.run(
                config,
                run,
                base=sweep.base,
                to=LAST,
                skip_invalid=sweep.skip_invalid,
                verify=sweep.verify,
                donors=donors,
            )
        seconds = sum(s.seconds for s in run.manifest.stages.values() if s.taken_from is None)
        best = _Best.model_validate(run.counts(LAST)["best"])
        return {**best.validation, "step": best.step, "seconds": round(seconds, 1)}


def _settings_are_to_blame(error: PladError, folder: Path) -> bool:
    """Whether training went wrong with a trial's settings, or they leave no pairs."""
    if not isinstance(error, DataError):
        return isinstance(error, DivergedError)
    return (folder / "manifest.json").is_file() and "generate" in read_manifest(folder).stages


def _keep_best(sweep: Sweep, study: Study) -> None:
    """Delete the students of all finished trials but the best."""
    best = studies.best(study)
    if sweep.section.keep == "all" or best is None:
        return
    for trial in studies.finished(study):
        folder = sweep.trial(trial.number)
        if trial.number != best.number and (folder / "student").exists():
            with open_run(folder) as run:
                clean(run, LAST)
