"""Train the student on the pairs."""

import logging
from typing import Any

from plad.config import RankObjective
from plad.rundir import atomic_dir
from plad.stages.context import Context, fine_tuned, student_card
from plad.train.prepare import require_groups, trainable

log = logging.getLogger("plad")

PROBE_PAIRS = 16  # pairs on which log-probabilities are watched while distilling


def _validator(ctx: Context, policy: Any, probe: list[Any], route: Any) -> Any:
    """Figures of the student's current weights on validation rows and on a few fixed pairs."""
    from plad.evaluate.quick import quick_figures
    from plad.generate.engine import Sampling, answer
    from plad.generate.ledger import Ledger
    from plad.judges import load_judge
    from plad.train.validation import probe_logps

    cfg = ctx.config
    rows = ctx.examples("validation")[: cfg.distill.validation.rows]
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


def distill(ctx: Context) -> dict[str, Any]:
    """Train the student on the pairs; keep its best weights by validation; write student/."""
    from plad.data.formats import read_pairs_parquet
    from plad.pairs import chosen_groups, pair_groups
    from plad.policy.load import merge_lora, save_policy
    from plad.scoring.score import checked_route
    from plad.train.groups import keep_fitting, longest
    from plad.train.run import train_policy
    from plad.train.validation import KeepBest

    cfg, run = ctx.config, ctx.run
    settings = cfg.distill
    pairs = read_pairs_parquet(run / "pairs.parquet")
    policy = fine_tuned(ctx, "student")
    limit = settings.max_length or policy.context
    ranked = keep_fitting(pair_groups(pairs, policy.prompt), limit)
    require_groups(ranked.groups, ranked.counts(), "distill")
    is_rank = isinstance(settings.objective, RankObjective)
    encoded = ranked if is_rank else keep_fitting(chosen_groups(pairs, policy.prompt), limit)
    lora = cfg.lora_for(settings, cfg.student)
    policy = trainable(policy, lora, settings, cfg.run.seed)
    route = checked_route(policy.model, longest(ranked.groups), log.warning)
    validated = settings.validation.evaluations > 0 and bool(ctx.examples("validation"))
    keep = KeepBest(
        policy.model,
        _validator(ctx, policy, ranked.groups[:PROBE_PAIRS], route) if validated else dict,
        lambda row: run.append_metrics({"stage": "distill", **row}),
        evaluations=settings.validation.evaluations if validated else 0,
        folder=run / "checkpoints/distill-best",
    )
    counts = train_policy(
        policy,
        encoded.groups,
        settings,
        settings.objective,
        route=route,
        depends=ctx.depends,
        stage="distill",
        folder=run / "checkpoints/distill",
        metrics_file=run / "metrics.jsonl",
        emit=run.append_metrics,
        seed=cfg.run.seed,
        callbacks=[keep] if validated else [],
    )
    counts |= encoded.counts()
    if validated:
        counts["best"] = keep.restore() if settings.validation.keep == "best" else keep.best()
    policy = merge_lora(policy)
    with atomic_dir(run / "student") as staging:
        save_policy(policy, staging)
        (staging / "README.md").write_text(student_card(ctx), encoding="utf-8")
    return counts
