"""Everything that can be found wrong with a run before a model is loaded, and what can't be found that way."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from plad.cli.validate.data import check_data, check_texts
from plad.cli.validate.judges import check_judges
from plad.cli.validate.models import check_policies, check_vocabularies
from plad.config.file import load_config
from plad.config.root import Config
from plad.errors import Findings, PladError
from plad.extras.sweep.space import Space
from plad.rundir.directory import check_place
from plad.text import clean

HOT = 2.0  # a temperature above which nobody samples on purpose
NEVER_CHECKED = (
    "that the weights load and fit into memory",
    "that the answers are any good: look at `plad show RUN generations` after a first `plad run CONFIG --limit 32`",
)


def validate(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    skip_invalid: bool = False,
    verify: str | None = None,
    online: bool = False,
) -> Findings:
    """Check a config with all it names: schema, run directory, data, tokenizers, lengths, extras.

    Only tokenizers and configurations of models are read, and only the file of a function is looked at. Nothing is
    downloaded.

    Args:
        online: send one request to a teacher behind an endpoint.
    """
    findings = Findings()
    try:
        config = load_config(path, overrides)
    except PladError as e:
        findings.fail("config", [e])
        findings.not_checked.append("anything else: the config has to be right first")
        return findings
    findings.add("ok", "config", str(path))
    base = path.parent
    _check_run_dir(findings, config)
    if config.generate.temperature > HOT:
        what = f"{config.generate.temperature:g} is far above 1: answers will be close to random words (the paper: 0.7)"
        findings.add("note", "generate.temperature", what)
    prepared = check_data(findings, config, base, skip_invalid)
    check_policies(findings, config, base, prepared, online=online)
    check_vocabularies(findings, config, base)
    check_texts(findings, config, base)
    check_judges(findings, config, base, prepared, verify)
    _check_sweep(findings, path, overrides)
    findings.not_checked += NEVER_CHECKED
    return findings


def _check_run_dir(findings: Findings, config: Config) -> None:
    try:
        check_place(config.run.dir)
    except PladError as e:
        findings.fail("run directory", [e])
        return
    used = (config.run.dir / "manifest.json").is_file()
    findings.add("ok", "run directory", f"{config.run.dir} ({'continues' if used else 'new'})")


def _check_sweep(findings: Findings, path: Path, overrides: Sequence[str]) -> None:
    section = load_config(path, overrides).sweep
    if section is None:
        return
    problems = Space(path, tuple(overrides), section).check()
    if problems:
        findings.fail("sweep", problems)
        return
    if importlib.util.find_spec("optuna") is None:
        findings.add("note", "sweep", "plad sweep needs the package optuna: pip install 'plad[tune]'")
    findings.add("ok", "sweep", f"settings to try: {len(section.space)}, each value looked at by itself")


def validation_view(findings: Findings) -> Iterator[str]:
    """One line a finding, warnings in capitals with their ways out below; what was not checked; how many warn."""
    for finding in findings.lines:
        state = "WARN" if finding.state == "warn" else finding.state
        first, *ways = finding.detail.splitlines()
        yield clean(f"{state:<6}{finding.what}: {first}")
        yield from (clean(f"      -> {way}") for way in ways)
    yield "not checked:"
    for line in findings.not_checked:
        yield clean(f"  - {line}")
    if findings.warnings:
        yield f"{findings.warnings} warning{'s' * (findings.warnings != 1)}, marked WARN above"
