"""Train the student on the pairs."""

from typing import Any

from plad.pipeline.context import Context, fine_tuned
from plad.pipeline.students.auto import distilled
from plad.pipeline.students.rounds import in_rounds
from plad.rundir.directory import atomic_dir


def distill(ctx: Context) -> dict[str, Any]:
    """The fine-tuned student and pairs.parquet -> student/."""
    from plad.data.formats import read_pairs_parquet
    from plad.policy.load import save_policy
    from plad.report.page import not_fatal, write_card
    from plad.report.parts.run_facts import read_facts

    file = ctx.run / "pairs.parquet"
    pairs, settings = read_pairs_parquet(file), ctx.config.distill
    if settings.rounds > 1:
        policy, counts = in_rounds(ctx, settings, pairs, file)
    else:
        policy, counts = distilled(ctx, "distill", settings, lambda: fine_tuned(ctx, "student"), pairs, file)
    with atomic_dir(ctx.run / "student") as staging:
        save_policy(policy, staging)
    with not_fatal("the student's card", ctx.run.path):
        write_card(ctx.run.path, read_facts(ctx.run.path), ctx.config)
    return counts
