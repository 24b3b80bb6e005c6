"""Checks of the judges and of the scorer of pairs, and what decides on these data."""

from pathlib import Path

from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.errors import Findings, PladError
from plad.judges.base import kind_of
from plad.judges.measure import BETTER_MEASURE, of_systems, of_weights


def check_judges(findings: Findings, config: Config, base: Path, prepared: Prepared | None, verify: str | None) -> None:
    """Let every judge say what is wrong with it."""
    named = [(f"evaluate.judges.{i}", judge) for i, judge in enumerate(config.evaluate.judges)]
    if config.pairs.scorer is not None:
        named.append(("pairs.scorer", config.pairs.scorer))
        if not config.pairs.scores:
            findings.add("note", "pairs.scorer", "has nothing to do: pairs.real_share is 0 and pairs.select is all")
    before = len(findings.problems)
    for place, judge in named:
        scorer = place == "pairs.scorer"
        rows = None if prepared is None else prepared.distill if scorer else prepared.test
        try:
            kind_of(judge.placed(base, verify)).check(findings, place, rows, against_target=not scorer)
        except PladError as e:
            findings.fail(place, [e])
    if prepared is not None and len(findings.problems) == before:
        _check_deciding(findings, config, prepared)


def _check_deciding(findings: Findings, config: Config, prepared: Prepared) -> None:
    """Say what decides: a warning where it sees nothing but likeness to the target."""
    validated = prepared.validation[: config.distill.validation.rows]
    systems = of_systems(config.evaluate.judges, prepared.test, rouge=config.evaluate.rouge)
    measures = [("the test set says whether the student is better", systems)]
    if validated and config.distill.validation.evaluations:
        chosen = " and ".join(_chosen(config))
        measures.append((f"{chosen} are chosen on validation", of_weights(config.evaluate.judges, validated)))
    weak = [f"{what} by {measure.words}" for what, measure in measures if measure.likeness]
    if weak:
        what = f"only likeness to the target decides, and nobody judges quality: {'; '.join(weak)}"
        findings.add("warn", "what decides", f"{what}\n{BETTER_MEASURE}")
    else:
        findings.add("ok", "what decides", "; ".join(f"{what} by {measure.words}" for what, measure in measures))


def _chosen(config: Config) -> list[str]:
    """What validation chooses in a run of this config."""
    distill = config.distill
    return [
        "weights",
        *(["the teacher's"] if config.teacher.sft and config.sft.validation.evaluations else []),
        *(["the objective"] if len(distill.objective.alternatives) > 1 else []),
        *(["the round"] if distill.rounds > 1 else []),
    ]
