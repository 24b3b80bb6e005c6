"""Train what the student is compared with: each method from the same fine-tuned student, on the same prompts."""

import gc
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from plad.config import Baseline, Config
from plad.rundir import STAGES, RunDir
from plad.stages.context import Context, fine_tuned, text_files
from plad.stages.generate import recorded_on_distill
from plad.stages.student import train_and_keep

log = logging.getLogger("plad")


def is_the_student(config: Config, method: Baseline) -> bool:
    """Whether a method is what the student itself is trained with, so that it stands there already."""
    return method.objective == config.distill.objective


def methods(config: Config) -> list[Baseline]:
    """The baselines that are systems of their own."""
    return list(config.methods)


def baselines(ctx: Context) -> dict[str, Any]:
    """The fine-tuned student and pairs.parquet -> baselines/NAME/, one folder a method.

    A folder is used again as long as what it was made from is the same: after an interruption, and when a method is
    added to the list.
    """
    from plad.data.formats import read_pairs_parquet

    cfg, run = ctx.config, ctx.run
    counts: dict[str, Any] = {}
    file = run / "pairs.parquet"
    pairs = read_pairs_parquet(file) if methods(cfg) else []
    shared = {k: v for k, v in ctx.depends.items() if k not in ("distill", "methods")}
    shared["pair"] = run.fingerprint("pair")
    for method in cfg.evaluate.baselines:
        if is_the_student(cfg, method):
            log.info("baseline %s is what the student itself is trained with: not trained again", method.name)
            counts[method.name] = {"same_as": "student"}
            continue
        settings = cfg.distill.model_copy(update={"objective": method.objective})
        counts[method.name] = train_and_keep(
            replace(ctx, depends=shared | text_files(ctx, method.objective)),
            f"baselines/{method.name}",
            settings,
            lambda: fine_tuned(ctx, "student"),
            pairs,
            run / "baselines" / method.name,
            file,
        )
        gc.collect()
        for part in ("", "-best"):
            run.drop(f"checkpoints/baselines-{method.name}{part}")
    return counts


def reopen_for_methods(run: RunDir, depends: Mapping[str, Any]) -> bool:
    """Count this stage and those after it as not done where the list of methods is all that has changed.

    What they made is kept: methods that were trained are used again, and evaluation and report are written anew.

    Returns:
        Whether it was so.
    """
    before, now = run.inputs("baselines"), json.loads(json.dumps(depends, default=str))
    if before is None or before["methods"] == now["methods"]:
        return False
    if before["methods"] and now["methods"] and _beside_methods(before) != _beside_methods(now):
        return False
    for stage in STAGES[STAGES.index("baselines") :]:
        run.manifest["stages"].pop(stage, None)
    run.save()
    return True


def _beside_methods(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in inputs.items() if k != "methods"}


def costs(ctx: Context) -> dict[str, dict[str, Any]]:
    """What the student and every baseline cost: updates, seconds, peak memory, tokens of the texts they learnt from."""
    cfg, run = ctx.config, ctx.run
    counted: dict[str, Mapping[str, Any]] = {"student": run.counts("distill")}
    if methods(cfg):
        counted |= {m.name: run.counts("baselines")[m.name] for m in methods(cfg)}
    cached = {
        system: sum(len(g.token_ids) for given in recorded_on_distill(ctx, system, samples).values() for g in given)
        for system, samples in (("teacher", cfg.generate.samples), ("student_sft", cfg.student_samples))
    }
    return {system: _cost(counts, cached) for system, counts in counted.items()}


def _cost(counts: Mapping[str, Any], cached: Mapping[str, int]) -> dict[str, Any]:
    """None where a stage of an earlier version, or one that chose among candidates, counted otherwise."""
    fresh = (counts.get("samples") or {}).get("tokens", 0)
    texts = counts.get("cached_texts")
    return {
        "updates": counts.get("steps"),
        "seconds": counts.get("train_seconds"),
        "peak_memory": counts.get("peak_memory"),
        "tokens_cached": None if texts is None else sum(cached[system] for system in texts),
        "tokens_fresh": fresh if texts is not None else None,
    }
