"""Train a student on pairs by one objective, and keep its best weights."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plad.config.models import DistillSection, ValidationSection
from plad.errors import DataError
from plad.objectives.sft import SftObjective
from plad.pipeline.context import Context
from plad.pipeline.made import made_before, sign
from plad.pipeline.students.measure import groups_of, prepare_pairs
from plad.pipeline.students.teacher_logits import prepare_logits
from plad.pipeline.students.validation import keep_best, watched_groups
from plad.records import Pair
from plad.rundir.directory import atomic_dir, fingerprint
from plad.train.prepare import require_groups, trainable

log = logging.getLogger("plad")


def train_student(
    ctx: Context,
    name: str,
    settings: DistillSection,
    policy: Any,
    pairs: Sequence[Pair],
    file: Path | None = None,
    *,
    preferred: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Train a policy on pairs, or on what a teacher predicts of their texts; keep its best weights by validation.

    Whatever the objective trains on, it takes as many steps as passes over the prompts of `pairs` make: prompts that it
    can't use are made up for by further passes over those that it can.

    Args:
        name: of the method; its metrics rows and its checkpoints go under it.
        settings: with a single objective.
        policy: where training starts, without an adapter.
        file: where `pairs` stand. Default: RUN/pairs.parquet.
        preferred: cross-entropy is of the preferred texts, whoever wrote them; else of the teacher's.

    Returns:
        The trained policy, its adapter merged, and counts.
    """
    from plad.pairs.groups import by_example
    from plad.policy.load import merge_lora
    from plad.scoring.score import checked_route
    from plad.train.groups import longest, tokens_of
    from plad.train.run import planned_steps, train_policy
    from plad.train.validation import probe_logps

    cfg, (objective,) = ctx.config, settings.objective.alternatives
    needs = objective.needs
    checkpoints = ctx.run / "checkpoints" / name.replace("/", "-")
    counts: dict[str, Any] = {}
    if needs.warm_up:
        policy, counts["sft"] = _warmed_up(ctx, name, settings, needs.warm_up, policy, pairs)
    ranked, encoded, measured = _groups(ctx, name, settings, policy, pairs, file, preferred=preferred)
    watched = watched_groups(ctx, settings, policy)
    policy = trainable(policy, cfg.lora_for(settings, cfg.student), settings, cfg.run.seed)
    teacher = texts = None
    steps = planned_steps(settings, len(by_example(pairs)))
    counts["tokens_cached"] = tokens_of(encoded.groups)
    if needs.logits is not None:
        found = prepare_logits(ctx, name, settings, policy, pairs, steps)
        encoded, teacher, texts = found.encoded, found.teacher, found.texts
        counts |= found.counts
    route = checked_route(policy.model, longest(ranked.groups), log.warning)
    keep = keep_best(
        ctx,
        name,
        settings.validation,
        policy,
        checkpoints.with_name(f"{checkpoints.name}-best"),
        lambda: probe_logps(policy.model, watched, route),
        watched=needs.pairs,
    )
    counts |= train_policy(
        policy,
        encoded.groups,
        settings,
        objective,
        route=route,
        depends=ctx.depends,
        stage=name,
        folder=checkpoints,
        metrics_file=ctx.run / "metrics.jsonl",
        emit=ctx.run.append_metrics,
        seed=cfg.run.seed,
        callbacks=[keep] if keep else [],
        teacher=teacher,
        texts=texts,
        steps=None if planned_steps(settings, len(encoded.groups)) == steps else steps,
    )
    a_step = settings.batch_size * settings.gradient_accumulation_steps
    counts["prompts"] = min(len(encoded.groups), counts["steps"] * a_step)
    counts |= {**encoded.counts(), **measured}
    if keep is not None:
        counts["best"] = keep.finish(settings.validation.keep)
        counts["alarms"] = list(keep.alarms.values())
    return merge_lora(policy), counts


def _groups(
    ctx: Context,
    name: str,
    settings: DistillSection,
    policy: Any,
    pairs: Sequence[Pair],
    file: Path | None,
    *,
    preferred: bool,
) -> tuple[Any, Any, Mapping[str, int]]:
    """The pairs' groups that fit into the context, what of them is trained on, and counts."""
    from plad.pairs.groups import chosen_groups
    from plad.train.groups import keep_fitting
    from plad.train.texts import only, texts_of_pairs

    prepared = prepare_pairs(ctx, settings, policy, pairs, file)
    (objective,) = settings.objective.alternatives
    groups = groups_of(objective, policy, prepared.pairs, prepared.references)
    ranked = keep_fitting(groups, policy, settings.max_length)
    require_groups(ranked.groups, ranked.counts(), name)
    if objective.needs.pairs or objective.needs.logits is not None:
        return ranked, ranked, prepared.counts
    if preferred:
        texts = chosen_groups(prepared.pairs, policy.prompt)
    else:
        texts = only(texts_of_pairs(prepared.pairs, policy.prompt), teacher=True)
    learnt = keep_fitting(texts, policy, settings.max_length)
    if not learnt.groups:
        raise DataError(
            f"no pair holds an answer of the teacher to learn from: {learnt.counts()}",
            where=f"{name}.objective",
            fix="raise max_length\nor pair the teacher's answers with the student's: pairs.select",
        )
    return ranked, learnt, prepared.counts


def train_and_keep(
    ctx: Context,
    name: str,
    settings: DistillSection,
    policy: Any,
    pairs: Sequence[Pair],
    folder: Path,
    file: Path | None = None,
    *,
    preferred: bool = False,
) -> dict[str, Any]:
    """`train_student` into a folder, unless an interrupted run of this stage has finished it; returns its counts."""
    from plad.policy.load import save_policy

    own = settings.shaping(apart=("lora", "validation", "rounds"))
    depends = fingerprint([ctx.depends, own, [p.id for p in pairs]])
    counts = made_before(folder, depends)
    if counts is not None:
        log.info("%s: trained before", name)
    else:
        start = policy() if callable(policy) else policy
        trained, counts = train_student(ctx, name, settings, start, pairs, file, preferred=preferred)
        with atomic_dir(folder) as staging:
            save_policy(trained, staging)
            sign(staging, depends, counts)
    for rest in ("", "-best", "-sft-done"):
        ctx.run.drop(f"checkpoints/{name.replace('/', '-')}{rest}")
    return counts


def _warmed_up(
    ctx: Context, name: str, settings: DistillSection, epochs: float, policy: Any, pairs: Sequence[Pair]
) -> tuple[Any, dict[str, Any]]:
    """The policy after passes of cross-entropy on the chosen texts."""
    from plad.policy.load import load_policy

    warm = settings.model_copy(
        update={"objective": SftObjective(), "epochs": epochs, "validation": ValidationSection(evaluations=0)}
    )
    folder = ctx.run / "checkpoints" / f"{name.replace('/', '-')}-sft-done"
    counts = train_and_keep(ctx, f"{name}/sft", warm, policy, pairs, folder, preferred=True)
    return load_policy(ctx.policy_section("student"), folder=folder), counts
