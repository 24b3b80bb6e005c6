"""Choosing a policy's checkpoint on validation rows while it trains."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plad.config import ValidationSection
from plad.stages.context import Context

log = logging.getLogger("plad")


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


def figures_of(ctx: Context, policy: Any, rows: Sequence[Any]) -> Callable[[], dict[str, Any]]:
    """A function that lets the policy, as it is, answer the rows, and measures the answers."""
    from plad.evaluate.quick import quick_figures
    from plad.generate.engine import Sampling, answer
    from plad.generate.ledger import Ledger
    from plad.generate.local import Transformers
    from plad.judges import load_judge
    from plad.stages.engines import judge_options

    cfg = ctx.config
    judges = ctx.judge_sections()
    judge = load_judge(judges[0], **judge_options(ctx)) if judges else None
    measure = quick_figures(rows, judge, stemmer=cfg.evaluate.stemmer, seed=cfg.run.seed)
    sampling = Sampling(cfg.evaluate.temperature, cfg.evaluation_max_new_tokens)

    def figures() -> dict[str, Any]:
        with Ledger(":memory:") as ledger:
            answers = answer(
                Transformers(policy, "current", cfg.generate.slots),
                rows,
                system="validation",
                weights="current",
                sampling=sampling,
                seed=cfg.run.seed,
                ledger=ledger,
            )
        return measure(answers)

    return figures


def _validations(file: Path, stage: str) -> list[dict[str, Any]]:
    """The validations of a training run that is resumed."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = [row for row in map(json.loads, lines) if row["stage"] == stage and "validation" in row]
    return [{"step": row["step"], "validation": row["validation"]} for row in rows]
