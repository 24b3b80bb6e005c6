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
        reasons = ", ".join(f"{n} {k.removeprefix('dropped_')}" for k, n in counts.items() if k.startswith("dropped_"))
        raise DataError(
            f"none of {counts['candidates']} pairs is left: {reasons}",
            where="pairs.drop",
            fix="truncated: raise generate.max_new_tokens, or train longer (sft.epochs) so that answers end\n"
            "identical or empty: use another student or a higher generate.temperature\n"
            "plad show RUN generations shows the answers",
        )
    write_pairs_parquet(ctx.run / "pairs.parquet", pairs)
    return counts
