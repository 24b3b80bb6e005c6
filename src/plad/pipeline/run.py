"""The order of the stages and what each depends on: data -> sft -> generate -> pair -> distill -> baselines -> evaluate
-> report.

Every stage is recorded with a fingerprint of all it depends on. The same command again continues where it
stopped; a changed setting is refused until the stages that depend on it are cleaned.
"""

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from plad.config.base import ROLES
from plad.config.models import ValidationSection
from plad.config.root import Config
from plad.errors import ConfigError, RunDirError
from plad.pipeline.context import Context, teacher_source, text_files
from plad.pipeline.stages.baselines import baselines, reopen_for_methods
from plad.pipeline.stages.data import data
from plad.pipeline.stages.distill import distill
from plad.pipeline.stages.evaluate import evaluate
from plad.pipeline.stages.generate import generate
from plad.pipeline.stages.pair import pair
from plad.pipeline.stages.report import report
from plad.pipeline.stages.sft import sft, signature
from plad.rundir.directory import STAGES, RunDir, sweep_staging
from plad.version import __version__

log = logging.getLogger("plad")

_RUN: dict[str, Callable[[Context], dict[str, Any]]] = {
    "data": data,
    "sft": sft,
    "generate": generate,
    "pair": pair,
    "distill": distill,
    "baselines": baselines,
    "evaluate": evaluate,
    "report": report,
}


def versions() -> dict[str, str]:
    """Versions that shape results, and the machine."""
    names = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "rouge-score")
    return {
        "plad": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **{name: version(name) for name in names},
    }


def _source(ctx: Context, role: str) -> dict[str, Any]:
    from plad.policy.fingerprint import model_fingerprint

    section = ctx.policy_section(role)
    return {
        "settings": getattr(ctx.config, role).shaping(apart=("lora",)),
        "weights": model_fingerprint(section.model, section.revision),
    }


def _dump(section: Any) -> Any:
    return None if section is None else section.model_dump(mode="json")


def _data_inputs(ctx: Context) -> dict[str, Any]:
    from plad.data.prepare import data_fingerprint

    return {
        "data": _dump(ctx.config.data),
        "files": data_fingerprint(ctx.config, ctx.base),
        "seed": ctx.config.run.seed,
        "skip_invalid": ctx.skip_invalid,
    }


def _sft_inputs(ctx: Context) -> dict[str, Any]:
    cfg = ctx.config
    roles: dict[str, Any] = {}
    for role in ROLES:
        settings = cfg.sft.settings(role)
        if role == "teacher" and not cfg.teacher.sft:
            continue
        roles[role] = _source(ctx, role) | {
            "sft": {**settings.shaping(apart=("lora",)), "lora": _dump(cfg.lora_for(settings, getattr(cfg, role)))},
        }
    if cfg.teacher.sft:
        roles["teacher"]["validation"] = _validation_inputs(ctx, cfg.sft.validation)
    return roles


def _ready_teacher(ctx: Context) -> dict[str, Any]:
    """A teacher that is not fine-tuned: what its answers depend on."""
    teacher = ctx.config.teacher
    if teacher.sft:
        return {}
    return {"teacher": _source(ctx, "teacher") if teacher.local else teacher_source(ctx)}


def _pair_inputs(ctx: Context) -> dict[str, Any]:
    from plad.data.sources import source_fingerprint

    section = ctx.scorer_section()
    unused = set() if section is not None else {"real_share", "ties", "confidence"}
    file = ctx.config.pairs.file
    return {
        "pairs": ctx.config.pairs.shaping(apart=("scorer", *unused)),
        "file": None if file is None else source_fingerprint(file.path, ctx.base),
        "scorer": None if section is None else {**section.inputs(), "stemmer": ctx.config.evaluate.stemmer},
    }


def _validation_inputs(ctx: Context, validation: ValidationSection) -> dict[str, Any] | None:
    """What the choice of the best weights depends on beside the rows."""
    cfg = ctx.config
    if not validation.evaluations:
        return None
    return {
        **validation.model_dump(mode="json"),
        "judge": [j.inputs() for j in ctx.judge_sections()[:1]],
        "temperature": cfg.evaluate.temperature,
        "max_new_tokens": cfg.evaluation_max_new_tokens,
        "stemmer": cfg.evaluate.stemmer,
    }


def _baseline_inputs(ctx: Context) -> dict[str, Any]:
    cfg = ctx.config
    if not cfg.evaluate.baselines:
        return {"methods": {}}
    return {
        "settings": cfg.distill.shaping(apart=("lora", "validation", "objective", "rounds")),
        "lora": _dump(cfg.lora_for(cfg.distill, cfg.student)),
        "validation": _validation_inputs(ctx, cfg.distill.validation),
        "methods": {m.name: _dump(m.objective) | text_files(ctx, m.objective) for m in cfg.evaluate.baselines},
    }


def inputs(ctx: Context, stage: str) -> dict[str, Any]:
    """Everything a stage's outcome depends on, and nothing else.

    Concurrency, memory bounds and checkpoint pace are left out: they never change a result.
    """
    earlier = [s for s in STAGES[: STAGES.index(stage)] if s != "baselines"][-1:]
    if stage == "evaluate" and ctx.config.methods:
        earlier.append("baselines")
    return {s: ctx.run.fingerprint(s) for s in earlier} | own_inputs(ctx, stage)


def own_inputs(ctx: Context, stage: str) -> dict[str, Any]:
    """What a stage depends on beside the stages before it."""
    cfg = ctx.config
    own: dict[str, Callable[[], dict[str, Any]]] = {
        "data": lambda: _data_inputs(ctx),
        "sft": lambda: _sft_inputs(ctx),
        "generate": lambda: {"generate": cfg.generate.shaping()} | _ready_teacher(ctx),
        "pair": lambda: _pair_inputs(ctx),
        "distill": lambda: {
            "distill": cfg.distill.shaping(apart=("lora", "validation")) | text_files(ctx, cfg.distill.objective),
            "lora": _dump(cfg.lora_for(cfg.distill, cfg.student)),
            "validation": _validation_inputs(ctx, cfg.distill.validation),
        },
        "baselines": lambda: _baseline_inputs(ctx),
        "evaluate": lambda: {
            "evaluate": cfg.evaluate.shaping(apart=("judges", "baselines")),
            "judges": [j.inputs() for j in ctx.judge_sections()],
            "max_new_tokens": cfg.evaluation_max_new_tokens,
        },
        "report": dict,
    }
    return own[stage]()


def _wanted(to: str | None, only: str | None) -> tuple[str, ...]:
    for name in (to, only):
        if name is not None and name not in STAGES:
            raise ConfigError(f"no stage {name!r}", where="--to", fix=f"one of {', '.join(STAGES)}")
    return STAGES[: STAGES.index(only or to) + 1] if only or to else STAGES  # type: ignore[arg-type]


def _adopted(ctx: Context, stage: str, donors: Sequence[Path]) -> bool:
    """Whether another run had finished the stage with the same settings; of fine-tuning each policy by itself."""
    if not donors:
        return False
    from plad.pipeline.reuse import adopt, adopt_fine_tuned

    donor = adopt(ctx.run, stage, ctx.depends, donors)
    if donor is not None:
        log.info("%s: taken from %s", stage, donor)
        return True
    for role in ROLES if stage == "sft" else ():
        donor = adopt_fine_tuned(ctx.run, role, signature(ctx, role), donors)
        if donor is not None:
            log.info("sft/%s: taken from %s", role, donor)
    return False


def _check_functions(ctx: Context, stages: Sequence[str]) -> None:
    """Check --verify before anything is trained; judges work from the pairs on."""
    scorer = ctx.scorer_section()
    sections = [*ctx.judge_sections(), *([] if scorer is None else [scorer])]
    if ctx.verify is not None and not any(s.takes_function for s in sections):
        raise ConfigError("no judge has match: function", where=f"--verify {ctx.verify}", fix="leave it out")
    if stages[-1] not in ("data", "sft", "generate"):
        for section in sections:
            section.require()


def _clean(ctx: Context, stage: str) -> None:
    """Forget a stage and what depends on it; a wrong path or name is found before anything is deleted."""
    _wanted(stage, None)
    inputs(ctx, "data")
    _sft_inputs(ctx)
    _ready_teacher(ctx)
    gone = ctx.run.forget(stage)
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
    run_dir.finish_cleaning()
    ctx = Context(config, run_dir, base, skip_invalid, verify)
    if clean is not None:
        _clean(ctx, clean)
    run_dir.set_versions(versions())
    run_dir.set_ledger(config.generate.ledger)
    _check_functions(ctx, _wanted(to, only))
    if donors:
        from plad.pipeline.reuse import adopt_answers

        log.info("%d answers are taken from other runs", adopt_answers(run_dir, donors))
    for stage in _wanted(to, only):
        depends = inputs(ctx, stage)
        if stage == "baselines" and reopen_for_methods(run_dir, depends):
            log.info("baselines: other methods than before; what is trained is kept")
        if run_dir.is_done(stage, depends):
            log.info("%s: done before", stage)
            continue
        if only not in (None, stage) and stage != "data" and not (stage == "baselines" and not config.methods):
            raise RunDirError(
                f"stage {stage} is not done, and {only} needs it",
                where=str(run_dir.path),
                fix=f"plad {stage} CONFIG\nor plad run CONFIG",
            )
        if _adopted(replace(ctx, depends=depends), stage, donors):
            continue
        log.info("%s: started", stage)
        started = time.monotonic()
        counts = _RUN[stage](replace(ctx, depends=depends))
        run_dir.finish(stage, depends, counts, time.monotonic() - started)
        run_dir.drop("checkpoints")  # of no use once the stage that wrote them is recorded
        log.info("%s: done in %.0f s", stage, time.monotonic() - started)
