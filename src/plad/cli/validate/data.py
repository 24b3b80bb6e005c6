"""Checks of the data and of the texts that objectives read beside it."""

from pathlib import Path

from plad.config.root import Config
from plad.data.prepare import Prepared, check
from plad.data.sources import locate
from plad.errors import DataError, Findings


def check_data(findings: Findings, config: Config, base: Path, skip_invalid: bool) -> Prepared | None:
    prepared, problems = check(config, base=base, skip_invalid=skip_invalid)
    if prepared is None:
        findings.fail("data", problems)
        findings.not_checked.append("prompts against tokenizers and contexts: the data has to be right first")
        return None
    c = prepared.counts
    findings.add(
        "ok",
        "data",
        f"{c['sft']} rows for fine-tuning, {c['distill']} for distillation, "
        f"{c['validation']} for validation, {c['test']} for test; no prompt in two of them",
    )
    for name, words in (
        ("skipped", "unusable rows skipped"),
        ("duplicate_prompts", "prompts that stand twice, kept"),
        ("overlap", "rows left out because their prompt stands in another file"),
    ):
        by_split = c[name]
        if isinstance(by_split, dict) and any(by_split.values()):
            findings.add("note", "data", f"{words}: " + ", ".join(f"{split} {n}" for split, n in by_split.items() if n))
    if not prepared.validation:
        findings.add("note", "data.validation", "none: the last weights of the distillation are kept, not the best")
    return prepared


def check_texts(findings: Findings, config: Config, base: Path) -> None:
    """Plain text that an objective reads beside the data."""
    files = [documents.file for o in config.objectives if (documents := o.needs.documents) is not None]
    missing = [file for name in files if not Path(file := locate(name, base)).is_file()]
    if missing:
        findings.fail(
            "pretraining", [DataError("no such file", where=file, fix="check pretraining") for file in missing]
        )
