"""Fine-tune teacher and student on D0."""

import gc
import logging
from typing import Any

from plad.config.base import ROLES, Role
from plad.config.models import PruneInit, ValidationSection
from plad.objectives.sft import SftObjective
from plad.pipeline.context import Context
from plad.pipeline.engines import check_teacher
from plad.pipeline.made import made_before, sign
from plad.pipeline.students.teacher_logits import check_logits
from plad.pipeline.students.validation import keep_best
from plad.records import Example
from plad.rundir.directory import atomic_dir, fingerprint
from plad.train.prepare import require_groups, trainable

log = logging.getLogger("plad")


def signature(ctx: Context, role: str) -> str:
    """What a fine-tuned policy is made from, as a hash."""
    return fingerprint([ctx.depends["data"], ctx.depends[role]])


def _start_policy(ctx: Context, role: str, influence_prompts: list[Example]) -> Any:
    """The policy that fine-tuning starts from, without an adapter; a pruned one is kept on disk."""
    from plad.policy.load import load_policy, save_policy
    from plad.policy.prune import prune_layers

    section = ctx.policy_section(role)
    init = getattr(section, "init", None)
    if not isinstance(init, PruneInit):
        return load_policy(section)
    folder = ctx.run / "sft/student_base"
    if made_before(folder, signature(ctx, role)) is None:
        whole = load_policy(section)
        sample = influence_prompts[: init.prompts]
        pruned = prune_layers(whole, init.layers, [e.prompt for e in sample])
        with atomic_dir(folder) as staging:
            save_policy(pruned, staging)
            sign(staging, signature(ctx, role), {"layers": init.layers})
        del whole, pruned
    return load_policy(section, folder=folder)


def _fine_tune(ctx: Context, role: Role) -> dict[str, Any]:
    from plad.policy.load import save_policy
    from plad.scoring.score import checked_route
    from plad.train.groups import keep_fitting, longest, sft_groups
    from plad.train.run import train_policy

    cfg, run = ctx.config, ctx.run
    folder = run / f"sft/{role}"
    made = made_before(folder, signature(ctx, role))
    if made is not None:
        return made
    rows = ctx.examples("sft")
    settings = cfg.sft.settings(role)
    policy = _start_policy(ctx, role, rows)
    for note in policy.notes:
        log.info("%s: %s", role, note)
    lora = cfg.lora_for(settings, getattr(cfg, role))
    encoded = keep_fitting(sft_groups(rows, policy.prompt), policy, settings.max_length)
    require_groups(encoded.groups, encoded.counts(), f"sft.{role}")
    policy = trainable(policy, lora, settings, cfg.run.seed)
    route = checked_route(policy.model, longest(encoded.groups), log.warning)
    stage = f"sft/{role}"
    validation = cfg.sft.validation if role == "teacher" else ValidationSection(evaluations=0)
    keep = keep_best(ctx, stage, validation, policy, run / f"checkpoints/sft-{role}-best")
    counts = train_policy(
        policy,
        encoded.groups,
        settings,
        SftObjective(),
        route=route,
        depends={"data": ctx.depends["data"], role: ctx.depends[role]},
        stage=stage,
        folder=run / f"checkpoints/sft-{role}",
        metrics_file=run / "metrics.jsonl",
        emit=run.append_metrics,
        seed=cfg.run.seed,
        callbacks=[keep] if keep else [],
    )
    counts |= encoded.counts()
    if keep is not None:
        counts["best"] = keep.finish(validation.keep)
    with atomic_dir(folder) as staging:
        save_policy(policy, staging)
        sign(staging, signature(ctx, role), counts)
    return counts


def sft(ctx: Context) -> dict[str, Any]:
    """D0 -> sft/teacher and sft/student (Algorithm 1, step 1)."""
    from plad.policy.folder import check_policy

    check_teacher(ctx)
    for role in ROLES:  # both, before the first is trained: the second's mistake shows at once
        if role == "student" or ctx.config.teacher.local:
            check_policy(ctx.policy_section(role), role)
    check_logits(ctx.config.objectives, ctx.policy_section("student"), ctx.policy_section("teacher"))
    counts: dict[str, Any] = {}
    for role in ROLES:
        if role == "teacher" and not ctx.config.teacher.sft:
            continue
        counts[role] = _fine_tune(ctx, role)
        gc.collect()
    return counts
