"""Sample teacher and student on D, through the ledger."""

import gc
import logging
from typing import Any

from plad.answers.fill import recorded
from plad.answers.question import Sampling
from plad.pipeline.context import Context
from plad.pipeline.engines import answer_set, engine_for, fill, open_ledger
from plad.records import Outcome

log = logging.getLogger("plad")


def generate(ctx: Context) -> dict[str, Any]:
    """D -> answers of teacher and student in the ledger (Algorithm 1, step 2)."""
    cfg = ctx.config
    total = sum(1 for _ in ctx.stream("distill"))
    counts: dict[str, Any] = {}
    with open_ledger(ctx) as ledger:
        for system, samples in (("student_sft", cfg.student_samples), ("teacher", cfg.generate.samples)):
            sampling = Sampling(cfg.generate.temperature, cfg.generate.max_new_tokens, samples)
            engine = engine_for(ctx, system, ledger)
            counts[system] = fill(ctx, engine, ctx.stream("distill"), total, answer_set(ctx, system, sampling), ledger)
            _warn_if_cut_off(system, counts[system])
            del engine
            gc.collect()
    return counts


def _warn_if_cut_off(system: str, outcomes: dict[str, int]) -> None:
    cut, total = outcomes.get(Outcome.TRUNCATED, 0), sum(outcomes.values())
    if cut > total / 4:
        log.warning(
            "%d of %d answers of %s were cut off: raise generate.max_new_tokens, or fine-tune longer so that they end",
            *(cut, total, system),
        )


def recorded_on_distill(ctx: Context, system: str, samples: int) -> dict[str, list[Any]]:
    """Recorded answers on D by example, from the ledger alone: no model is loaded."""
    sampling = Sampling(ctx.config.generate.temperature, ctx.config.generate.max_new_tokens, samples)
    with open_ledger(ctx) as ledger:
        return recorded(ctx.examples("distill"), answer_set(ctx, system, sampling), ledger)
