"""Pair the recorded answers."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from plad.data.formats import write_pairs_parquet
from plad.data.preferences import read_preferences
from plad.data.sources import source_fingerprint
from plad.data.split import prompt_key
from plad.errors import DataError, NoPairsError
from plad.evaluate.agreement import preference_counts
from plad.pairs.build import build_pairs
from plad.pipeline.engines import judge_resources, recorded_on_distill
from plad.pipeline.resources import Resources
from plad.pipeline.stage import Counts, Inputs
from plad.records import Generation, Pair, pair_id

log = logging.getLogger("plad")

Answers = Mapping[str, Sequence[Generation]]


def all_pairs(resources: Resources, teacher: Answers, student: Answers) -> tuple[list[Pair], dict[str, Any]]:
    """Pairs of answers to the distillation prompts by the config's rules, then those of `pairs.file`; and counts.

    Raises:
        NoPairsError: no pair is left.
    """
    pairs, counts = _paired(resources, teacher, student)
    if resources.config.pairs.file is not None:
        added, more = imported(resources)
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


def _paired(resources: Resources, teacher: Answers, student: Answers) -> tuple[list[Pair], dict[str, Any]]:
    config = resources.config
    section = resources.scorer_section()
    scorer = None if section is None else section.open(judge_resources(resources))
    result = build_pairs(
        resources.examples("distill"), teacher, student, config.pairs, scorer=scorer, seed=config.run.seed
    )
    counts: dict[str, Any] = dict(result.counts)
    if config.pairs.real_share > 0:
        counts |= preference_counts(result.scored)
    if scorer is not None:
        counts["scorer"] = {"name": scorer.name, **scorer.describe()}
    if "wrong" in counts:
        _log_scored(counts, scorer.name if scorer is not None else "")
    return result.pairs, counts


def _log_scored(counts: Mapping[str, Any], scorer: str) -> None:
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


def inputs(resources: Resources) -> Inputs:
    """Rules, the scorer, and the pairs of a file."""
    section, pairs = resources.scorer_section(), resources.config.pairs
    unused = set[str]() if section is not None else {"real_share", "ties", "confidence"}
    return {
        "pairs": pairs.shaping(apart=("scorer", *unused)),
        "file": None if pairs.file is None else source_fingerprint(pairs.file.path, resources.base),
        "scorer": None if section is None else {**section.inputs(), "stemmer": resources.config.evaluate.stemmer},
    }


def run(resources: Resources, inputs: Inputs) -> Counts:
    """Recorded answers -> pairs.parquet (Eq. 3)."""
    config = resources.config
    pairs, counts = all_pairs(
        resources,
        recorded_on_distill(resources, "teacher", config.generate.samples),
        recorded_on_distill(resources, "student_sft", config.student_samples),
    )
    write_pairs_parquet(resources.run / "pairs.parquet", pairs)
    return counts


def imported(resources: Resources) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of a file that somebody else made, and counts; ties and pairs of equal texts are left out.

    Raises:
        DataError: the file can't be read, or asks what validation or test rows ask.
    """
    file = resources.config.pairs.file
    assert file is not None
    preferences = read_preferences(
        file.path, file.columns, limit=file.limit, skip_invalid=resources.skip_invalid, base=resources.base
    )
    held_out = {prompt_key(e.prompt) for split in ("validation", "test") for e in resources.examples(split)}
    leaking = [p.id for p in preferences.rows if prompt_key(p.prompt) in held_out]
    if leaking:
        raise DataError(
            f"{len(leaking)} pairs ask what validation or test rows ask, so results would be flattered: "
            + ", ".join(leaking[:5]),
            where=file.path,
            fix="remove these rows from the file",
        )
    kept = [p for p in preferences.rows if not p.tie]
    pairs = [Pair(pair_id(f"file {i}"), p.prompt, p.chosen, p.rejected, "file", "file") for i, p in enumerate(kept)]
    counts = {"from_file": len(pairs), "file_ties": len(preferences.rows) - len(kept)}
    return pairs, {**counts, "file_identical": preferences.identical, "file_skipped": preferences.skipped}
