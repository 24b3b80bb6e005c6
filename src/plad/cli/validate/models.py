"""Checks of teacher and student: tokenizers, prompt formats, lengths, and whether their vocabularies are one."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from plad.answers.engine import Inspection, engine_kind
from plad.answers.question import Sampling
from plad.config.base import ROLES, Role
from plad.config.models import ModelSection
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.split import nested_share
from plad.errors import Findings, PladError, PolicyError
from plad.policy.resolve import local_folder, locate_model
from plad.records import Example, Message, Prompt

if TYPE_CHECKING:
    from plad.policy.prompt import PromptFormat

SPLITS = ("sft", "distill", "validation", "test")
_WIDE = 16  # characters a token of the context: a prompt of more is measured by its beginning


def check_policies(findings: Findings, config: Config, base: Path, prepared: Prepared | None, *, online: bool) -> None:
    for role in ROLES:
        if role == "teacher" and not config.teacher.local:
            _check_engine(findings, config, base, prepared, online=online)
            continue
        section: ModelSection = getattr(config, role)
        try:
            section = section.model_copy(update={"model": locate_model(section.model, base, section.revision)})
            if role == "teacher":
                engine_kind(config.teacher.engine).check(findings, Inspection(config.teacher, base))
            folder = local_folder(section.model, section.revision)
            if folder is None:
                findings.not_checked.append(f"{role} {section.model}: {_why_not(section.model)}")
                findings.add("skip", role, f"{section.model} (see below)")
                continue
            _check_policy(findings, config, role, section, folder, prepared)
        except PladError as e:
            where = e.where if e.where and e.where.startswith(role) else f"{role}: {e.where}" if e.where else role
            named = PolicyError(e.what, where=where, fix=e.fix)
            findings.fail(role, [named])


def _check_engine(findings: Findings, config: Config, base: Path, prepared: Prepared | None, *, online: bool) -> None:
    """Let the engine of a teacher whose weights are not here look at what it needs."""
    engine, task = engine_kind(config.teacher.engine), Inspection(config.teacher, base, online=online)
    sampling = Sampling(config.generate.temperature, config.generate.max_new_tokens, config.generate.samples)
    task = replace(task, sampling=sampling, seed=config.run.seed)
    if prepared is not None:
        distill = nested_share(prepared.distill, config.generate.share, config.run.seed, "distill")
        task = replace(task, distill=distill, test=prepared.test, max_failed=config.generate.max_failed)
    try:
        engine.check(findings, task)
    except PladError as e:
        if e.where in type(engine).model_fields:
            e.where = f"teacher.engine.{e.where}"
        findings.fail("teacher", [e])


def check_vocabularies(findings: Findings, config: Config, base: Path) -> None:
    """Objectives on logits need one vocabulary; where a policy has problems already, they come first."""
    if findings.problems or not any(objective.needs.logits for objective in config.objectives):
        return
    from plad.pipeline.students.teacher_logits import check_logits

    both = (config.student, config.teacher)
    sections = [s.model_copy(update={"model": locate_model(s.model, base, s.revision)}) for s in both]
    if any(local_folder(s.model, s.revision) is None for s in sections):
        findings.not_checked.append("that teacher and student have one vocabulary, which objectives on logits need")
        return
    try:
        check_logits(config.objectives, *sections)
    except PladError as e:
        findings.fail("vocabularies", [e])
    else:
        findings.add("ok", "vocabularies", "teacher and student have the same tokens")


def _why_not(model: str) -> str:
    if model.endswith(".gguf"):
        return "its tokenizer and the lengths (the file is converted when the run starts)"
    return "no such folder here, so taken for a hub model; nothing was downloaded to look at it"


def _check_policy(
    findings: Findings, config: Config, role: Role, section: ModelSection, folder: Path, prepared: Prepared | None
) -> None:
    from plad.policy.checks.targets import check_targets
    from plad.policy.checks.template import check_template
    from plad.policy.context import context_of
    from plad.policy.folder import check_init, load_tokenizer, read_format
    from plad.policy.lora import read_adapter
    from plad.policy.resolve import is_adapter

    weights = local_folder(read_adapter(folder).base, None) if is_adapter(folder) else folder
    if weights is None:
        findings.not_checked.append(f"{role}: the adapter's base model is not on this machine")
        return
    rows = [e.prompt for name in SPLITS for e in getattr(prepared, name)] if prepared is not None else []
    if section.prompt.template is None and section.prompt.format != "plain":
        check_template(load_tokenizer(folder), rows, str(folder))
    prompt, notes, model = read_format(folder, weights, section.prompt)
    findings.add("ok", role, "; ".join([section.model, *notes]))
    check_init(getattr(section, "init", None), model, role)
    check_targets(model, config.adapters(role))
    if prepared is not None:
        _check_lengths(findings, config, role, prompt, prepared, *context_of(model))


def _check_lengths(
    findings: Findings,
    config: Config,
    role: str,
    prompt: "PromptFormat",
    prepared: Prepared,
    context: int | None,
    apart: bool,
) -> None:
    from plad.policy.context import fits

    lengths = {name: [(_tokens(prompt, e.prompt, context), e) for e in getattr(prepared, name)] for name in SPLITS}
    most = max(n for rows in lengths.values() for n, _ in rows)
    longest = f"over {2 * context}" if context is not None and most > 2 * context else str(most)
    if context is None:
        findings.add("ok", f"{role}: lengths", f"longest prompt {longest} tokens; the model states no limit")
        return
    answers = {"distill": config.generate.max_new_tokens}
    answers |= dict.fromkeys(("validation", "test"), config.evaluation_max_new_tokens)
    over = {name: sum(not fits(n, answers[name], context, apart=apart) for n, _ in lengths[name]) for name in answers}
    targets = [(n, _target_tokens(prompt, e, context)) for n, e in lengths["sft"]]
    longer = config.sft.max_length or math.inf
    over["sft"] = sum(not fits(n, t, context, apart=apart) or n + t > longer for n, t in targets)
    total = sum(over.values())
    state = "note" if total else "ok"
    findings.add(
        state,
        f"{role}: lengths",
        f"longest prompt {longest} tokens, context {context}; {total} rows don't fit with their answer"
        + (f" ({', '.join(f'{k} {n}' for k, n in over.items() if n)}): counted and left out" if total else ""),
    )
    for name, rows in lengths.items():
        if rows and over[name] == len(rows):
            raise PolicyError(
                f"no row of {name} fits: the longest prompt has {longest} tokens, the context {context}",
                where=role,
                fix="use a model with a longer context, or shorter prompts\nor lower generate.max_new_tokens",
            )


def _tokens(format_: "PromptFormat", prompt: Prompt, context: int | None) -> int:
    """Tokens of a prompt; of one that is far too long at least twice the context, without reading all of it."""
    if context is not None:
        start: Prompt
        if isinstance(prompt, str):
            start = prompt[: _WIDE * context]
        else:
            start = tuple(Message(role=m["role"], content=m["content"][: _WIDE * context]) for m in prompt)
        if start != prompt and (n := len(format_.encode_prompt(start))) > 2 * context:
            return n
    return len(format_.encode_prompt(prompt))


def _target_tokens(format_: "PromptFormat", example: Example, context: int) -> int:
    target = example.target or ""
    n = len(format_.encode_completion(target[: _WIDE * context]))
    return n if n > 2 * context or len(target) <= _WIDE * context else len(format_.encode_completion(target))
