"""Run the stages of a config that are not done yet.

Every stage is recorded with a fingerprint of all it depends on. The same command again continues where it
stopped; a changed setting is refused until the stages that depend on it are cleaned.
"""

import contextlib
import logging
import os
import platform
import time
from collections.abc import Generator, Sequence
from importlib.metadata import version
from pathlib import Path

from plad.config.base import ROLES
from plad.config.root import Config
from plad.errors import ConfigError, Interrupted, RunDirError
from plad.pipeline.keys import user_keys
from plad.pipeline.outputs import files_of, fingerprint_of, lost, make_room
from plad.pipeline.resources import Resources
from plad.pipeline.reuse import adopt, adopt_answers, adopt_fine_tuned, name_models_as
from plad.pipeline.stage import NAMES, STAGES, Inputs, Stage, clean, finish_cleaning, following, up_to
from plad.pipeline.stages.baselines import reopen_for_methods
from plad.pipeline.stages.sft import signature
from plad.pipeline.students.ending import told_kept
from plad.policy.fingerprint import as_known_before
from plad.rundir.atomic import sweep_staging
from plad.rundir.directory import RunDir
from plad.rundir.manifest import FINGERPRINTS
from plad.text import clean as clean_text
from plad.text import redact
from plad.version import __version__

log = logging.getLogger("plad")


def versions() -> dict[str, str]:
    """Versions that shape results, and the machine."""
    names = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "rouge-score")
    return {
        "plad": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **{name: version(name) for name in names},
    }


def inputs(resources: Resources, stage: Stage) -> Inputs:
    """Everything a stage's outcome depends on, and nothing else.

    Concurrency, memory bounds and checkpoint pace are left out: they never change a result.
    """
    earlier = [s for s in STAGES if s.name in stage.after and _asked_for(resources.config, s)]
    own = dict(stage.work.inputs(resources))
    if resources.run.manifest.fingerprints != FINGERPRINTS:
        own = as_known_before(own)
    return {s.name: resources.run.fingerprint(s.name) for s in earlier} | own


def _asked_for(config: Config, stage: Stage) -> bool:
    return not stage.optional or bool(config.methods)


def _wanted(to: str | None, only: str | None) -> tuple[Stage, ...]:
    for name in (to, only):
        if name is not None and name not in NAMES:
            raise ConfigError(f"no stage {name!r}", where="--to", fix=f"one of {', '.join(NAMES)}")
    return up_to(only or to or NAMES[-1])


def _adopted(resources: Resources, stage: Stage, depends: Inputs, donors: Sequence[Path]) -> bool:
    """Whether another run had finished the stage with the same settings; of fine-tuning each policy by itself."""
    donor = adopt(resources.run, stage, depends, donors)
    if donor is not None:
        log.info("%s: taken from %s", stage.name, donor)
        return True
    for role in (role for role in ROLES if stage.name == "sft" and role in depends):
        donor = adopt_fine_tuned(resources.run, role, signature(depends, role), donors)
        if donor is not None:
            log.info("sft/%s: taken from %s", role, donor)
    return False


def _check_functions(resources: Resources, last: Stage) -> None:
    """Check --verify before anything is trained; judges work from the pairs on."""
    scorer = resources.scorer_section()
    sections = [*resources.judge_sections(), *([] if scorer is None else [scorer])]
    if resources.verify is not None and not any(s.takes_function for s in sections):
        raise ConfigError("no judge has match: function", where=f"--verify {resources.verify}", fix="leave it out")
    if last.name not in ("data", "sft", "generate"):
        for section in sections:
            section.require()


def _clean(resources: Resources, name: str) -> None:
    """Forget a stage and what depends on it; a wrong path or name is found before anything is deleted."""
    _wanted(name, None)
    for stage in up_to("generate"):
        stage.work.inputs(resources)
    gone = clean(resources.run, name)
    log.info("cleaned: %s", ", ".join(gone) if gone else "nothing was there")


def run(
    config: Config,
    run_dir: RunDir,
    *,
    base: Path,
    to: str | None = None,
    only: str | None = None,
    clean: str | None = None,
    skip_invalid: bool = False,
    verify: str | None = None,
    donors: Sequence[Path] = (),
) -> None:
    """Run the stages that are not done yet.

    Args:
        base: where relative model and data paths start.
        to: the last stage to run.
        only: run this stage alone; those before it must be done (data is run where needed).
        clean: do this stage and all that depends on it again.
        verify: `module:function` or `file.py:function` of a verifiable judge.
        donors: other runs; what they finished with the same settings is taken over.

    Raises:
        RunDirError: a finished stage was made with other settings, or an earlier stage is missing.
    """
    for name in sweep_staging(run_dir.path):
        log.info("removed %s, left half-written by a stopped run", name)
    if broken := run_dir.log.mend():
        log.warning("%s: %d broken lines are left out", run_dir.log.file, broken)
    finish_cleaning(run_dir)
    resources = Resources(config, run_dir, base, skip_invalid, verify)
    if clean is not None:
        _clean(resources, clean)
    run_dir.set_versions(versions())
    run_dir.set_ledger(config.generate.ledger)
    name_models_as(run_dir, donors)
    stages = _wanted(to, only)
    _check_functions(resources, stages[-1])
    gone = {s.name: lost(run_dir.path, s, run_dir.manifest) for s in stages if s.name in run_dir.manifest.stages}
    if donors:
        log.info("%d answers are taken from other runs", adopt_answers(run_dir, donors))
    for stage in stages:
        _run_stage(resources, stage, only, donors, gone.get(stage.name, []))


def _run_stage(
    resources: Resources, stage: Stage, only: str | None, donors: Sequence[Path], gone: Sequence[str]
) -> None:
    run_dir, depends = resources.run, inputs(resources, stage)
    if stage.name == "baselines" and reopen_for_methods(run_dir, depends):
        log.info("baselines: other methods than before; what is trained is kept")
    done = run_dir.is_done(stage.name, depends, following(stage.name)[1:], user_keys(resources.config, stage.name))
    if stage.name == "sft":
        told_kept(resources)
    gone = gone if done else ()
    if done and not gone:
        log.info("%s: done before", stage.name)
        return
    if only not in (None, stage.name) and not stage.on_demand and _asked_for(resources.config, stage):
        raise RunDirError(
            f"stage {stage.name} is not done, and {only} needs it",
            where=str(run_dir.path),
            fix=f"plad {stage.name} CONFIG\nor plad run CONFIG",
        )
    before = run_dir.manifest.stages[stage.name].made if gone else None
    if gone:
        named = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
        log.warning("%s: done before, but %s is gone or damaged: it is made again", stage.name, named)
        make_room(run_dir, stage, gone)
    if gone and stage.name == "generate":  # at once: a ledger that holds a few of its answers looks whole
        later = run_dir.forget(following(stage.name))[1:]
        log.warning("%s: what depends on it is made again too: %s", stage.name, ", ".join(later))
    if not _adopted(resources, stage, depends, donors):
        _make(resources, stage, depends, before)
    else:
        _forget_later(run_dir, stage, before, run_dir.manifest.stages[stage.name].made)


def _make(resources: Resources, stage: Stage, depends: Inputs, before: str | None) -> None:
    run_dir, started = resources.run, time.monotonic()
    log.info("%s: started", stage.name)
    with _stops_are_recorded(run_dir, stage):
        counts = stage.work.run(resources, depends)
    seconds, made = time.monotonic() - started, fingerprint_of(run_dir.path, stage)
    _forget_later(run_dir, stage, before, made)
    run_dir.finish(stage.name, depends, counts, seconds, files=files_of(run_dir.path, stage), made=made)
    run_dir.drop("checkpoints")  # of no use once the stage that wrote them is recorded
    log.info("%s: done in %.0f s", stage.name, seconds)


def _forget_later(run: RunDir, stage: Stage, before: str | None, made: str) -> None:
    """Count what depends on a stage as not done where its models were there before and are others now."""
    if before not in (None, made) and (later := run.forget(following(stage.name)[1:])):
        log.warning("%s: came out otherwise than before; made again from it: %s", stage.name, ", ".join(later))


@contextlib.contextmanager
def _stops_are_recorded(run_dir: RunDir, stage: Stage) -> Generator[None]:
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        run_dir.stop(stage.name)
        raise
    except Exception as e:
        run_dir.stop(stage.name, clean_text(redact(str(e) or type(e).__name__)))
        raise
