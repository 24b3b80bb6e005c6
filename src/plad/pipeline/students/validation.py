"""Choosing a policy's checkpoint on validation rows while it trains."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.models import DistillSection, ValidationSection
from plad.pipeline.context import Context
from plad.records import Pair

log = logging.getLogger("plad")

WATCHED = 16  # validation prompts whose texts' log-probabilities are watched while training


def keep_best(
    ctx: Context,
    stage: str,
    validation: ValidationSection,
    policy: Any,
    folder: Path,
    probe: Callable[[], dict[str, float]] = dict,
    *,
    watched: bool = False,
) -> Any | None:
    """A trainer's callback that validates and keeps the best weights in `folder`; None where there is nothing to do.

    Args:
        stage: name of the training run in the metrics.
        probe: further figures of the current weights.
        watched: whether signs of collapse are looked for.
    """
    from plad.train.validation import KeepBest

    rows = ctx.examples("validation")[: validation.rows]
    if not validation.evaluations or not rows:
        return None
    figures = figures_of(ctx, policy, rows)
    run = ctx.run
    return KeepBest(
        policy.model,
        lambda: figures() | probe(),
        lambda row: run.append_metrics({"stage": stage, **row}),
        evaluations=validation.evaluations,
        folder=folder,
        patience=validation.patience,
        watched=watched,
        warn=lambda sentence: log.warning("%s: %s", stage, sentence),
        before=lambda: _validations(run / "metrics.jsonl", stage),
    )


def watched_groups(ctx: Context, settings: DistillSection, policy: Any) -> list[Any]:
    """A few validation prompts, each with its target and what the policy answers now; none where nothing validates.

    While the policy is trained, log-probabilities and order of these two texts show what happens to prompts that it is
    not trained on.
    """
    from plad.pairs.build import pair_groups
    from plad.pipeline.engines import open_ledger
    from plad.sampling.local import Transformers
    from plad.train.groups import keep_fitting
    from plad.train.measure import weights_digest

    cfg = ctx.config
    rows = [row for row in ctx.examples("validation") if (row.target or "").strip()][:WATCHED]
    if not settings.validation.evaluations or not rows:
        return []
    weights = weights_digest(policy.model)
    sampling = Sampling(cfg.generate.temperature, cfg.generate.max_new_tokens)
    with open_ledger(ctx) as ledger:
        answers = answer(
            Transformers(policy, weights, cfg.generate.slots),
            rows,
            AnswerSet("watched", weights, sampling, cfg.run.seed),
            ledger,
        )
    pairs = [
        Pair(f"{row.id}#0-0", row.prompt, row.target or "", own.text, "target", "watched", own.token_ids)
        for row, own in zip(rows, answers, strict=True)
        if own.text.strip() not in ("", (row.target or "").strip())
    ]
    return keep_fitting(pair_groups(pairs, policy.prompt), policy, settings.max_length).groups


def figures_of(ctx: Context, policy: Any, rows: Sequence[Any]) -> Callable[[], dict[str, Any]]:
    """A function that lets the policy, as it is, answer the rows, and measures the answers."""
    from plad.evaluate.winrate import quick_figures
    from plad.pipeline.engines import judge_resources
    from plad.sampling.local import Transformers

    cfg = ctx.config
    judges = ctx.judge_sections()
    judge = judges[0].open(judge_resources(ctx)) if judges else None
    measure = quick_figures(rows, judge, stemmer=cfg.evaluate.stemmer, seed=cfg.run.seed)
    sampling = Sampling(cfg.evaluate.temperature, cfg.evaluation_max_new_tokens)

    def figures() -> dict[str, Any]:
        with Ledger(":memory:") as ledger:
            answers = answer(
                Transformers(policy, "current", cfg.generate.slots),
                rows,
                AnswerSet("validation", "current", sampling, cfg.run.seed),
                ledger,
            )
        return measure(answers)

    return figures


def _validations(file: Path, stage: str) -> list[dict[str, Any]]:
    """The validations of a training run that is resumed."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = [row for row in map(json.loads, lines) if row["stage"] == stage and "validation" in row]
    return [{"step": row["step"], "validation": row["validation"]} for row in rows]
