"""Pair the recorded answers."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from plad.errors import DataError, NoPairsError
from plad.pipeline.context import Context
from plad.pipeline.stages.generate import recorded_on_distill
from plad.records import Generation, Pair

log = logging.getLogger("plad")

Answers = Mapping[str, Sequence[Generation]]


def all_pairs(ctx: Context, teacher: Answers, student: Answers) -> tuple[list[Pair], dict[str, Any]]:
    """Pairs of answers to the distillation prompts by the config's rules, then those of `pairs.file`; and counts.

    Raises:
        NoPairsError: no pair is left.
    """
    pairs, counts = _paired(ctx, teacher, student)
    if ctx.config.pairs.file is not None:
        added, more = imported(ctx)
        pairs, counts = [*pairs, *added], {**counts, **more}
    if not pairs:
        reasons = ", ".join(f"{n} {k.removeprefix('dropped_')}" for k, n in counts.items() if k.startswith("dropped_"))
        raise NoPairsError(
            f"none of {counts['candidates']} pairs is left: {reasons}",
            where="pairs.drop",
            fix="truncated: raise generate.max_new_tokens, or train longer (sft.epochs) so that answers end\n"
            "identical or empty: use another student or a higher generate.temperature\n"
            "plad show RUN generations shows the answers",
        )
    return pairs, counts


def _paired(ctx: Context, teacher: Answers, student: Answers) -> tuple[list[Pair], dict[str, Any]]:
    from plad.pairs.build import build_pairs
    from plad.pipeline.engines import judge_resources

    cfg = ctx.config
    section = ctx.scorer_section()
    scorer = None if section is None else section.open(judge_resources(ctx))
    pairs, counts = build_pairs(ctx.examples("distill"), teacher, student, cfg.pairs, scorer=scorer, seed=cfg.run.seed)
    if scorer is not None:
        counts["scorer"] = {"name": scorer.name, **scorer.describe()}
    if "wrong" in counts:
        _say(counts, scorer.name if scorer is not None else "")
    return pairs, counts


def _say(counts: Mapping[str, Any], scorer: str) -> None:
    wrong, scored = counts["wrong"], counts["scored"]
    if wrong["n"]:
        log.info(
            "%s prefers the student's answer in %d of %d judged pairs: %.1f %% [%.1f, %.1f] of them are wrong as "
            "pseudo-pairs; %d ties, %d unjudged, %d swapped",
            *(scorer, wrong["wrong"], wrong["pairs"], 100 * wrong["value"], 100 * wrong["low"], 100 * wrong["high"]),
            *(scored["ties"], scored["unjudged"], counts.get("swapped", 0)),
        )
    if scored["unjudged"]:
        log.warning(
            "%s could not judge %d of %d pairs: they keep the order of their sources",
            scorer,
            scored["unjudged"],
            scored["pairs"],
        )


def pair(ctx: Context) -> dict[str, Any]:
    """Recorded answers -> pairs.parquet (Eq. 3)."""
    from plad.data.formats import write_pairs_parquet

    cfg = ctx.config
    pairs, counts = all_pairs(
        ctx,
        recorded_on_distill(ctx, "teacher", cfg.generate.samples),
        recorded_on_distill(ctx, "student_sft", cfg.student_samples),
    )
    write_pairs_parquet(ctx.run / "pairs.parquet", pairs)
    return counts


def imported(ctx: Context) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of a file that somebody else made, and counts; ties and pairs of equal texts are left out.

    Raises:
        DataError: the file can't be read, or asks what validation or test rows ask.
    """
    from plad.data.preferences import read_preferences
    from plad.data.split import prompt_key

    file = ctx.config.pairs.file
    assert file is not None
    found = read_preferences(file.path, file.columns, limit=file.limit, skip_invalid=ctx.skip_invalid, base=ctx.base)
    held_out = {prompt_key(e.prompt) for split in ("validation", "test") for e in ctx.examples(split)}
    leaking = [p.id for p in found.rows if prompt_key(p.prompt) in held_out]
    if leaking:
        raise DataError(
            f"{len(leaking)} pairs ask what validation or test rows ask, so results would be flattered: "
            + ", ".join(leaking[:5]),
            where=file.path,
            fix="remove these rows from the file",
        )
    kept = [p for p in found.rows if not p.tie]
    pairs = [Pair(f"file {i}#0-0", p.prompt, p.chosen, p.rejected, "file", "file") for i, p in enumerate(kept)]
    counts = {"from_file": len(pairs), "file_ties": len(found.rows) - len(kept)}
    return pairs, {**counts, "file_identical": found.identical, "file_skipped": found.skipped}
