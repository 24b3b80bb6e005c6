"""Pair the recorded answers."""

from typing import Any

from plad.errors import DataError
from plad.stages.context import Context
from plad.stages.generate import recorded_on_distill


def pair(ctx: Context) -> dict[str, Any]:
    """Recorded answers -> pairs.parquet (Eq. 3)."""
    from plad.data.formats import write_pairs_parquet
    from plad.pairs import build_pairs

    cfg = ctx.config
    pairs, counts = build_pairs(
        ctx.examples("distill"),
        recorded_on_distill(ctx, "teacher", cfg.generate.samples),
        recorded_on_distill(ctx, "student_sft", cfg.student_samples),
        cfg.pairs.drop,
    )
    if not pairs:
        raise DataError(
            f"every pair was dropped: {counts}", where="pairs.drop", fix="look at `plad show RUN generations`"
        )
    write_pairs_parquet(ctx.run / "pairs.parquet", pairs)
    return counts
