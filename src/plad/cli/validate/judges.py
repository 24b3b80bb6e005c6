"""Checks of the judges and of the scorer of pairs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from plad.config.judges import EmbeddingJudge, LlmJudge, ReferenceJudge, RewardJudge, VerifiableJudge
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.sources import locate
from plad.errors import ConfigError, Finding, Findings, PladError, PolicyError
from plad.policy.resolve import local_folder
from plad.records import Example


def check_judges(findings: Findings, config: Config, base: Path, prepared: Prepared | None, verify: str | None) -> None:
    named = [(f"evaluate.judges.{i}", judge) for i, judge in enumerate(config.evaluate.judges)]
    if config.pairs.scorer is not None:
        named.append(("pairs.scorer", config.pairs.scorer))
        if not config.pairs.scores:
            findings.add("note", "pairs.scorer", "has nothing to do: pairs.real_share is 0 and pairs.select is all")
    for name, judge in named:
        rows = None if prepared is None else prepared.distill if name == "pairs.scorer" else prepared.test
        if isinstance(judge, ReferenceJudge | EmbeddingJudge) and rows is not None:
            findings.lines += _reference_judge(name, judge.type, rows, against_target=name != "pairs.scorer")
        if isinstance(judge, VerifiableJudge):
            _check_verifiable(findings, name, judge.verified_by(verify), rows)
        if isinstance(judge, LlmJudge):
            _check_llm(findings, name, judge)
        if isinstance(judge, RewardJudge | EmbeddingJudge):
            model = locate(judge.model, base)
            try:
                folder = local_folder(model, judge.revision)
            except PladError as e:
                findings.fail(name, [PolicyError(e.what, where=f"{name}.model: {e.where or model}", fix=e.fix)])
                continue
            if folder is None:
                findings.not_checked.append(f"{name} {model}: whether the hub has it (it is not on this machine)")
            else:
                findings.add("ok", name, model)
                if judge.type == "reward":
                    findings.not_checked.append(f"{name} {model}: that it has exactly one output")


def _check_llm(findings: Findings, name: str, judge: LlmJudge) -> None:
    from plad.remote.transport import api_key, require_client

    try:
        require_client()
        api_key(judge)
    except PladError as e:
        findings.fail(name, [e])
        return
    findings.add("ok", name, f"llm: {judge.model} at {judge.base_url}; two questions a comparison")
    findings.not_checked.append(f"{name}: that {judge.base_url} answers, and replies in JSON; nothing was sent")


def _check_verifiable(findings: Findings, name: str, judge: VerifiableJudge, rows: Sequence[Example] | None) -> None:
    from plad.judges.verifiable import needs_function, verifiable_rows

    try:
        needs_function(judge)
        if judge.match == "function":
            findings.add("ok", name, f"verifiable: {judge.function}")
            findings.not_checked.append(f"{name}: what {judge.function} does; it was not imported")
        elif rows is not None:
            able = verifiable_rows(judge, rows)
            said = f"{able} of {len(rows)} rows have a reference with something to compare"
            if not able:
                raise ConfigError(said, where=name, fix="another match, markers or pattern")
            findings.add("ok" if able == len(rows) else "note", name, f"verifiable: {said}")
    except PladError as e:
        findings.fail(name, [e])


def _reference_judge(name: str, kind: str, test: Sequence[Example], *, against_target: bool) -> Iterator[Finding]:
    judged = sum(len(e.references) > against_target for e in test)
    if not against_target:
        yield Finding("ok", name, f"{kind}: {judged} of {len(test)} distillation rows have a reference")
    elif judged == len(test):
        yield Finding("ok", name, f"{kind}: every test row has a reference beside its target")
    else:
        said = f"{kind}: only {judged} of {len(test)} test rows have a reference beside their target"
        yield Finding("note", name, f"{said}; the others are not judged")
