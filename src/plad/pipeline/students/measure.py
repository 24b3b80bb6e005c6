"""Numbers that an objective needs of every text: measured once with the starting student, kept with the pairs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from plad.config.models import DistillSection
from plad.config.objectives import Needs, ObjectiveSection
from plad.data.formats import measured_with, read_pairs_parquet, write_pairs_parquet
from plad.errors import DataError
from plad.pairs.groups import by_example, pair_groups
from plad.pipeline.engines import recorded_on_distill
from plad.pipeline.resources import Resources
from plad.progress import track
from plad.records import Pair
from plad.rundir.fingerprint import fingerprint

if TYPE_CHECKING:
    from plad.policy.load import Policy
    from plad.scoring.layout import Group

log = logging.getLogger("plad")


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """Pairs that an objective can train on.

    Attributes:
        pairs: with the values that it needs.
        references: texts by example id that it reads beside them; empty where it reads none.
        counts: for the manifest.
    """

    pairs: Sequence[Pair]
    references: Mapping[str, str] = field(default_factory=dict[str, str])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


def groups_of(
    objective: ObjectiveSection, policy: "Policy", pairs: Sequence[Pair], references: Mapping[str, str] | None = None
) -> "list[Group]":
    """One group a prompt, its texts as the objective scores them: what is measured is what is trained on."""
    from plad.train.groups import without_rejected_end

    groups = pair_groups(pairs, policy.prompt, references)
    if objective.needs.rejected_end:
        return groups
    return [without_rejected_end(group, policy.eos_ids) for group in groups]


def prepare_pairs(
    ctx: Resources, settings: DistillSection, policy: "Policy", pairs: Sequence[Pair], file: Path | None = None
) -> PreparedPairs:
    """Give the pairs what `settings.objective` needs of them.

    Args:
        policy: where training starts.
        pairs: all or some of those in `file`.
        file: a value that was measured with the same weights, texts and settings is read there; new ones are added.
            Default: RUN/pairs.parquet.

    Raises:
        DataError: no prompt has a reference.
    """
    (objective,) = settings.objective.alternatives
    similarity = objective.needs.similarity
    counts: dict[str, int] = {}
    references: dict[str, str] = {}
    if similarity is not None:
        before, (references, pairs) = len(pairs), _references(ctx, similarity.reference == "target", pairs)
        counts["pairs_without_reference"] = before - len(pairs)
    frozen = similarity is not None and not similarity.live
    if frozen or objective.needs.reference_logps:
        before, pairs = len(pairs), _measured(settings, policy, pairs, references, file or ctx.run / "pairs.parquet")
        counts["pairs_too_long_to_measure"] = before - len(pairs)
    return PreparedPairs(pairs, {} if frozen else references, counts)


def _references(ctx: Resources, targets_first: bool, pairs: Sequence[Pair]) -> tuple[dict[str, str], Sequence[Pair]]:
    from plad.pairs.groups import choose_references

    examples = ctx.examples("distill") if targets_first else []
    targets = {example.id: example.target for example in examples}
    complete = all((targets.get(i) or "").strip() for i in by_example(pairs))
    answers = {} if complete else recorded_on_distill(ctx, "teacher", ctx.config.generate.samples)
    references, kept = choose_references(pairs, targets, answers)
    if pairs and not kept:
        raise DataError(
            "no prompt has a text to compare its candidates with",
            where="distill.objective.reference",
            fix="generate.samples: 2 gives each prompt a second answer of the teacher\nor give targets in data.train",
        )
    if len(kept) < len(pairs):
        log.warning(
            "%d of %d pairs are left out: their prompts have no other text to be the reference, or they hold it",
            *(len(pairs) - len(kept), len(pairs)),
        )
    return references, kept


def _measured(
    settings: DistillSection, policy: "Policy", pairs: Sequence[Pair], references: Mapping[str, str], file: Path
) -> list[Pair]:
    """The pairs that fit into the context, with all that the objective needs of them."""
    from plad.train.groups import keep_fitting
    from plad.train.loss import REFERENCE, SIMILARITY
    from plad.train.measure import weights_digest

    (objective,) = settings.objective.alternatives
    needs = objective.needs
    groups = keep_fitting(groups_of(objective, policy, pairs, references), policy, settings.max_length).groups
    made_of = [weights_digest(policy.model), [[g.id, g.prompt, g.completions[: g.candidates]] for g in groups]]
    wanted: dict[str, str] = {}
    if needs.reference_logps:
        wanted[REFERENCE] = fingerprint(made_of)
    if needs.similarity is not None and not needs.similarity.live:
        compared = [g.completions[g.candidates :] for g in groups]
        wanted[SIMILARITY] = fingerprint([made_of, compared, needs.similarity.spans])
    known = measured_with(file)
    missing = {name: key for name, key in wanted.items() if known.get(name) != key}
    fitting = {group.id for group in groups}
    stored = {pair.id: pair for pair in read_pairs_parquet(file)}  # with what was measured for other objectives since
    pairs = [stored[pair.id] for pair in pairs if pair.example_id in fitting]
    if not missing:
        log.info("%s: measured before, kept with the pairs", " and ".join(wanted))
        return pairs
    lacking = replace(
        needs,
        reference_logps=REFERENCE in missing,
        similarity=needs.similarity if SIMILARITY in missing else None,
    )
    values = _measure(settings, policy, groups, by_example(pairs), lacking)

    def updated(pair: Pair) -> Pair:
        others = {name: value for name, value in pair.values.items() if name not in missing}
        return replace(pair, values=others | values.get(pair.id, {}))

    write_pairs_parquet(file, [updated(pair) for pair in stored.values()], measured_with=known | missing)
    return [updated(pair) for pair in pairs]


def _measure(
    settings: DistillSection,
    policy: "Policy",
    groups: "Sequence[Group]",
    pairs: Mapping[str, Sequence[Pair]],
    needs: Needs,
) -> dict[str, dict[str, tuple[float, float]]]:
    """What each pair measures, by its id."""
    from plad.scoring.score import checked_route
    from plad.train.groups import longest
    from plad.train.measure import measure

    if not groups:
        return {}
    route = checked_route(policy.model, longest(groups), log.warning)
    with track("measuring", len(groups), "prompts") as progress:
        values = measure(
            policy.model,
            groups,
            route=route,
            reference_logp=needs.reference_logps,
            spans=needs.similarity.spans if needs.similarity is not None else None,
            max_tokens=settings.max_tokens,
            advance=progress.advance,
        )
    return {
        pair.id: {name: (value[better], value[worse]) for name, value in of_group.items()}
        for group, of_group in zip(groups, values, strict=True)
        for pair, (better, worse) in zip(pairs[group.id], group.pairs, strict=True)
    }
