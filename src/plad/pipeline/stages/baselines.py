"""Train what the student is compared with: each method from the same fine-tuned student, on the same prompts."""

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plad.evaluate.metrics import Cost
from plad.pipeline.context import Context, fine_tuned, text_files
from plad.pipeline.students.student import train_and_keep
from plad.rundir.directory import STAGES, RunDir

log = logging.getLogger("plad")


def baselines(ctx: Context) -> dict[str, Any]:
    """The fine-tuned student and pairs.parquet -> baselines/NAME/, one folder a method.

    A folder is used again as long as what it was made from is the same: after an interruption, and when a method is
    added to the list.
    """
    from plad.data.formats import read_pairs_parquet

    cfg, run = ctx.config, ctx.run
    counts: dict[str, Any] = {}
    file = run / "pairs.parquet"
    pairs = read_pairs_parquet(file) if cfg.methods else []
    shared = {k: v for k, v in ctx.depends.items() if k not in ("distill", "methods")}
    shared["pair"] = run.fingerprint("pair")
    for method in cfg.evaluate.baselines:
        if method not in cfg.methods:
            log.info("baseline %s is what the student itself is trained with: not trained again", method.name)
            counts[method.name] = {"same_as": "student"}
            continue
        settings = cfg.distill.model_copy(update={"objective": method.objective, "rounds": 1})
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


def costs(ctx: Context) -> dict[str, Cost]:
    """What the student and every baseline cost: updates, prompts, seconds, peak memory, tokens they learnt from."""
    cfg, run = ctx.config, ctx.run
    found = {"student": cost_of(_rounds(run), _sampled_between(run))}
    if cfg.methods:
        found |= {m.name: cost_of([run.counts("baselines")[m.name]]) for m in cfg.methods}
    return found


def _rounds(run: RunDir) -> list[Mapping[str, Any]]:
    """Counts of the trainings that led to the student, one after another."""
    counts = run.counts("distill")
    files = [run / f"rounds/{n}/round.json" for n in range(1, counts.get("kept_round", 0) + 1)]
    found: list[Mapping[str, Any]] = [json.loads(f.read_text())["training"] if f.is_file() else {} for f in files]
    return [of_round or {"steps": None} for of_round in found] or [counts]


def _sampled_between(run: RunDir) -> int:
    """Tokens of the answers that the student gave between these trainings."""
    from plad.data.formats import read_pairs_parquet

    tokens = 0
    for n in range(2, run.counts("distill").get("kept_round", 0) + 1):
        file = run / f"rounds/{n}/pairs.parquet"
        pairs = read_pairs_parquet(file) if file.is_file() else []
        answers = {(pair.example_id, ids) for pair in pairs for ids in (pair.chosen_token_ids, pair.rejected_token_ids)}
        tokens += sum(len(ids) for _, ids in answers)
    return tokens


def cost_of(trainings: Sequence[Mapping[str, Any]], sampled: int = 0) -> Cost:
    """Costs of trainings of one student after another, each with the warm-up before it.

    Args:
        trainings: their counts.
        sampled: tokens that were sampled between them.
    """
    parts = [part for counts in trainings for part in (counts.get("sft"), counts) if part]

    def each(name: str) -> list[Any] | None:
        found = [part.get(name) for part in parts]
        return None if None in found else found

    def total(name: str) -> Any | None:
        found = each(name)
        return None if found is None else sum(found)

    samples = [part.get("samples") or {} for part in parts]
    met: list[Any] = [s.get("prompts", part.get("prompts")) for s, part in zip(samples, parts, strict=True)]
    seconds, peaks = total("train_seconds"), each("peak_memory")
    cached = trainings[0].get("tokens_cached")
    return Cost(
        updates=total("steps"),
        prompts=None if None in met else max(met),
        seconds=None if seconds is None else round(seconds + sum(p.get("teacher_seconds", 0) for p in parts), 1),
        peak_memory=None if peaks is None else max(peaks),
        tokens_cached=cached,
        tokens_fresh=None if cached is None else sampled + sum(s.get("tokens", 0) for s in samples),
    )
