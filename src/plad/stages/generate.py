"""Sample teacher and student on D, through the ledger."""

import gc
import logging
from typing import Any

from plad.records import Example, Generation, Outcome
from plad.stages.context import Context, fine_tuned, weights

log = logging.getLogger("plad")


def sampled(
    ctx: Context, policy: Any, rows: list[Example], system: str, sampling: Any, ledger: Any
) -> list[Generation]:
    """Answers through the ledger, with progress."""
    from plad.generate.engine import answer
    from plad.progress import track

    with track(f"{system} answers", len(rows) * sampling.samples, "answers") as progress:
        return answer(
            policy,
            rows,
            system=system,
            weights=weights(ctx, system),
            sampling=sampling,
            seed=ctx.config.run.seed,
            slots=ctx.config.generate.slots,
            ledger=ledger,
            progress=progress,
        )


def generate(ctx: Context) -> dict[str, Any]:
    """D -> answers of teacher and student in the ledger (Algorithm 1, step 2)."""
    from plad.generate.engine import Sampling
    from plad.generate.ledger import Ledger

    cfg = ctx.config
    rows = ctx.examples("distill")
    counts: dict[str, Any] = {}
    with Ledger(ctx.run / "generations.sqlite") as ledger:
        for system, role, samples in (
            ("student_sft", "student", cfg.student_samples),
            ("teacher", "teacher", cfg.generate.samples),
        ):
            policy = fine_tuned(ctx, role)
            sampling = Sampling(cfg.generate.temperature, cfg.generate.max_new_tokens, samples)
            counts[system] = _outcomes(sampled(ctx, policy, rows, system, sampling, ledger))
            _warn_if_cut_off(system, counts[system])
            del policy
            gc.collect()
    return counts


def _warn_if_cut_off(system: str, outcomes: dict[str, int]) -> None:
    cut, total = outcomes.get(Outcome.TRUNCATED, 0), sum(outcomes.values())
    if cut > total / 4:
        log.warning(
            "%d of %d answers of %s were cut off: raise generate.max_new_tokens, or fine-tune longer so that they end",
            *(cut, total, system),
        )


def _outcomes(answers: list[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for generation in answers:
        counts[str(generation.outcome)] = counts.get(str(generation.outcome), 0) + 1
    return counts


def recorded_on_distill(ctx: Context, system: str, samples: int) -> dict[str, list[Any]]:
    """Recorded answers on D by example, from the ledger alone: no model is loaded."""
    from plad.generate.engine import Sampling, recorded
    from plad.generate.ledger import Ledger

    cfg = ctx.config
    with Ledger(ctx.run / "generations.sqlite") as ledger:
        return recorded(
            ctx.examples("distill"),
            system=system,
            weights=weights(ctx, system),
            sampling=Sampling(cfg.generate.temperature, cfg.generate.max_new_tokens, samples),
            seed=cfg.run.seed,
            ledger=ledger,
        )
