"""Checks of the judges and of the scorer of pairs."""

from pathlib import Path

from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.errors import Findings, PladError
from plad.judges.base import kind_of


def check_judges(findings: Findings, config: Config, base: Path, prepared: Prepared | None, verify: str | None) -> None:
    """Let every judge say what is wrong with it."""
    named = [(f"evaluate.judges.{i}", judge) for i, judge in enumerate(config.evaluate.judges)]
    if config.pairs.scorer is not None:
        named.append(("pairs.scorer", config.pairs.scorer))
        if not config.pairs.scores:
            findings.add("note", "pairs.scorer", "has nothing to do: pairs.real_share is 0 and pairs.select is all")
    for place, judge in named:
        scorer = place == "pairs.scorer"
        rows = None if prepared is None else prepared.distill if scorer else prepared.test
        try:
            kind_of(judge.placed(base, verify)).check(findings, place, rows, against_target=not scorer)
        except PladError as e:
            findings.fail(place, [e])
