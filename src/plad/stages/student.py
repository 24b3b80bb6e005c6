"""Train a student on pairs by one objective, and keep its best weights."""

import logging
from collections.abc import Sequence
from typing import Any

from plad.config import DistillSection, SftObjective
from plad.records import Pair
from plad.stages.context import Context
from plad.train.prepare import require_groups, trainable

log = logging.getLogger("plad")

PROBE_PAIRS = 16  # pairs on which log-probabilities are watched while training


def _validator(ctx: Context, settings: DistillSection, policy: Any, probe: list[Any], route: Any) -> Any:
    """Figures of the student's current weights on validation rows and on a few fixed pairs."""
    from plad.evaluate.quick import quick_figures
    from plad.generate.engine import Sampling, answer
    from plad.generate.ledger import Ledger
    from plad.judges import load_judge
    from plad.train.validation import probe_logps

    cfg = ctx.config
    rows = ctx.examples("validation")[: settings.validation.rows]
    stemmer = cfg.evaluate.stemmer
    judges = ctx.judge_sections()
    judge = load_judge(judges[0], stemmer=stemmer) if judges else None
    figures = quick_figures(rows, judge, stemmer=stemmer, seed=cfg.run.seed)
    sampling = Sampling(cfg.evaluate.temperature, cfg.evaluation_max_new_tokens)

    def validate() -> dict[str, Any]:
        with Ledger(":memory:") as ledger:
            answers = answer(
                policy,
                rows,
                system="validation",
                weights="current",
                sampling=sampling,
                seed=cfg.run.seed,
                slots=cfg.generate.slots,
                ledger=ledger,
            )
        return figures(answers) | probe_logps(policy.model, probe, route)

    return validate


def train_student(
    ctx: Context, name: str, settings: DistillSection, policy: Any, pairs: Sequence[Pair]
) -> tuple[Any, dict[str, Any]]:
    """Train a policy on pairs; keep its best weights by validation.

    Args:
        name: of the method; its metrics rows and its checkpoints go under it.
        policy: where training starts, without an adapter.

    Returns:
        The trained policy, its adapter merged, and counts.
    """
    from plad.pairs import chosen_groups, pair_groups
    from plad.policy.load import merge_lora
    from plad.scoring.score import checked_route
    from plad.train.groups import keep_fitting, longest
    from plad.train.run import train_policy
    from plad.train.validation import KeepBest

    cfg, run = ctx.config, ctx.run
    checkpoints = run / "checkpoints" / name.replace("/", "-")
    limit = settings.max_length or policy.context
    ranked = keep_fitting(pair_groups(pairs, policy.prompt), limit)
    require_groups(ranked.groups, ranked.counts(), name)
    is_sft = isinstance(settings.objective, SftObjective)
    encoded = keep_fitting(chosen_groups(pairs, policy.prompt), limit) if is_sft else ranked
    policy = trainable(policy, cfg.lora_for(settings, cfg.student), settings, cfg.run.seed)
    route = checked_route(policy.model, longest(ranked.groups), log.warning)
    validated = settings.validation.evaluations > 0 and bool(ctx.examples("validation"))
    keep = KeepBest(
        policy.model,
        _validator(ctx, settings, policy, ranked.groups[:PROBE_PAIRS], route) if validated else dict,
        lambda row: run.append_metrics({"stage": name, **row}),
        evaluations=settings.validation.evaluations if validated else 0,
        folder=checkpoints.with_name(f"{checkpoints.name}-best"),
    )
    counts = train_policy(
        policy,
        encoded.groups,
        settings,
        settings.objective,
        route=route,
        depends=ctx.depends,
        stage=name,
        folder=checkpoints,
        metrics_file=run / "metrics.jsonl",
        emit=run.append_metrics,
        seed=cfg.run.seed,
        callbacks=[keep] if validated else [],
    )
    counts |= encoded.counts()
    if validated:
        counts["best"] = keep.restore() if settings.validation.keep == "best" else keep.best()
    return merge_lora(policy), counts
