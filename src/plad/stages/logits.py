"""What training on a teacher's logits needs beside pairs: the texts of both, the teacher, and fresh samples."""

import gc
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plad.config import (
    DistillmObjective,
    DistillSection,
    FDistillObjective,
    GkdObjective,
    KdObjective,
    LogitObjective,
    MiniLlmObjective,
    ModelSection,
    Objective,
    StorableObjective,
)
from plad.errors import DataError
from plad.records import Pair
from plad.rundir import fingerprint, is_complete
from plad.stages.context import Context, fine_tuned, weights

log = logging.getLogger("plad")


@dataclass(frozen=True, slots=True)
class OnLogits:
    """What training on logits takes.

    Attributes:
        encoded: groups, one a prompt; its chosen texts are the teacher's (or the data's), the others the student's.
        teacher: predicts the same tokens.
        texts: says what each step trains on; None for the groups themselves.
        cached: systems whose answers of the generate stage are trained on.
    """

    encoded: Any
    teacher: Any
    texts: Any
    cached: tuple[str, ...]


def check_logits(objectives: Sequence[Objective], student: ModelSection, teacher: ModelSection) -> None:
    """Refuse objectives on logits where teacher and student have different tokens; no weights are loaded.

    Args:
        student, teacher: with their models' places resolved.

    Raises:
        PolicyError: vocabularies or prompt formats differ.
    """
    if not any(isinstance(objective, LogitObjective) for objective in objectives):
        return
    from plad.policy.folder import check_policy
    from plad.policy.vocabulary import require_same_format, require_same_vocabulary

    ours, theirs = check_policy(student, "student"), check_policy(teacher, "teacher")
    require_same_vocabulary(ours.tokenizer, theirs.tokenizer)
    require_same_format(ours.describe(), theirs.describe())


def prepare_logits(
    ctx: Context, name: str, settings: DistillSection, policy: Any, pairs: Sequence[Pair], steps: int
) -> OnLogits:
    """Gather what `settings.objective` needs of the pairs' prompts.

    Args:
        name: of the method.
        policy: the student, as it is trained: with its adapter.
        pairs: their texts are told apart by who wrote them, not by which is preferred.
        steps: that will be taken.

    Raises:
        DataError: no prompt has the texts that it needs.
        PolicyError: teacher and student have different tokens.
    """
    from plad.train.groups import keep_fitting, longest

    objective = settings.objective
    assert isinstance(objective, LogitObjective)
    groups, cached = _texts(ctx, objective, policy, pairs)
    encoded = keep_fitting(groups, policy, settings.max_length)
    if not encoded.groups:
        raise DataError(
            f"no prompt has the texts that {objective.type} trains on: {encoded.counts()}",  # type: ignore[attr-defined]
            where=f"{name}.objective",
            fix="raise max_length\nor sample both models: generate.samples, generate.student_samples",
        )
    teacher = _teacher(ctx, objective, policy, encoded.groups, longest(encoded.groups))
    texts = _source(ctx, name, settings, policy, teacher, encoded.groups, steps)
    return OnLogits(encoded, teacher, texts, cached)


# -- texts --------------------------------------------------------------------------------------------


def _texts(
    ctx: Context, objective: LogitObjective, policy: Any, pairs: Sequence[Pair]
) -> tuple[list[Any], tuple[str, ...]]:
    """One group a prompt with the texts that the objective may train on, and who wrote those of before training."""
    from plad.train.texts import texts_of_pairs, with_targets

    groups = texts_of_pairs(pairs, policy.prompt)
    teacher, student = ("teacher",), ("student_sft",)
    match objective:
        case KdObjective():
            targets = {e.id: e.target for e in ctx.examples("distill")}
            complete = all((targets.get(g.id) or "").strip() for g in groups)
            if objective.text == "target" or (objective.text == "auto" and complete):
                return with_targets(groups, targets, policy.prompt), ()
            return _only(groups, teacher=True), teacher
        case FDistillObjective(divergence="kl"):
            return _only(groups, teacher=True), teacher
        case FDistillObjective(divergence="rkl", student_samples="cached"):
            return _only(groups, student=True), student
        case FDistillObjective(divergence="rkl") | MiniLlmObjective():
            return groups, ()  # prompts alone matter
        case FDistillObjective(student_samples="cached"):
            return _only(groups, teacher=True, student=True), teacher + student
        case DistillmObjective(student_samples="cached") if objective.student_share:
            return _only(groups, teacher=True, student=True), teacher + student
        case _:
            return _only(groups, teacher=True), teacher


def _only(groups: Sequence[Any], *, teacher: bool = False, student: bool = False) -> list[Any]:
    """Those groups that have the wanted texts, with these texts alone."""
    found: list[Any] = []
    for g in groups:
        theirs = g.completions[: g.chosen] if teacher else ()
        own = g.completions[g.chosen :] if student else ()
        if len(theirs) >= teacher and len(own) >= student:
            found.append(replace(g, completions=(*theirs, *own), chosen=len(theirs)))
    return found


# -- the teacher --------------------------------------------------------------------------------------


def _teacher(ctx: Context, objective: LogitObjective, policy: Any, groups: Sequence[Any], probe: Any) -> Any:
    """The teacher in memory, or what it said, from disk."""
    from plad.scoring.head import check_head
    from plad.scoring.topk import StoredTeacher

    check_head(policy.model, probe)
    if not isinstance(objective, StorableObjective) or objective.teacher_logits == "live":
        return _live(ctx, objective, policy, probe)
    texts = fingerprint([[g.prompt, g.completions] for g in groups])
    made_of = [weights(ctx, "teacher"), objective.teacher_dtype, objective.top_k, objective.temperature, texts]
    folder = ctx.run / "teacher_logits" / fingerprint(made_of)
    if not is_complete(folder):
        _store(ctx, objective, policy, groups, probe, folder)
        gc.collect()
    return StoredTeacher.read(folder)


def _live(ctx: Context, objective: LogitObjective, policy: Any, probe: Any) -> Any:
    import torch

    from plad.policy.vocabulary import require_same_format, require_same_vocabulary
    from plad.scoring.divergence import LiveTeacher
    from plad.scoring.head import check_head
    from plad.scoring.score import checked_route

    dtype = None if objective.teacher_dtype == "auto" else objective.teacher_dtype
    teacher = fine_tuned(ctx, "teacher", dtype=dtype)
    require_same_vocabulary(policy.tokenizer, teacher.tokenizer)
    require_same_format(policy.prompt.describe(), teacher.prompt.describe())
    device = policy.device if objective.teacher_device == "auto" else torch.device(objective.teacher_device)
    model = teacher.model.to(device).requires_grad_(False).eval()
    check_head(model, probe)
    log.info("teacher for logits: %s on %s", str(model.dtype).removeprefix("torch."), device)
    return LiveTeacher(model, checked_route(model, probe, log.warning))


def _store(
    ctx: Context, objective: StorableObjective, policy: Any, groups: Sequence[Any], probe: Any, folder: Path
) -> None:
    from plad.progress import track
    from plad.scoring.topk import store_teacher

    teacher = _live(ctx, objective, policy, probe)
    with track("teacher logits", len(groups), "prompts") as bar:
        store_teacher(
            teacher, groups, folder, k=objective.top_k, temperature=objective.temperature, advance=bar.advance
        )


# -- fresh samples ------------------------------------------------------------------------------------


def _source(
    ctx: Context,
    name: str,
    settings: DistillSection,
    policy: Any,
    teacher: Any,
    groups: Sequence[Any],
    steps: int,
) -> Any:
    """What every step trains on, where that isn't the groups themselves."""
    from plad.train.rollouts import MixedTexts

    cfg, objective = ctx.config, settings.objective
    match objective:
        case FDistillObjective() if objective.samples:
            sampler = _sampler(ctx, name, policy, objective.sampling_temperature)
            return MixedTexts(1.0, objective.divergence != "rkl", cfg.run.seed, sampler)
        case GkdObjective() if objective.student_share:
            sampler = _sampler(ctx, name, policy, objective.sampling_temperature)
            return MixedTexts(objective.student_share, False, cfg.run.seed, sampler)
        case DistillmObjective() if objective.student_share:
            fresh = objective.student_samples == "fresh"
            sampler = _sampler(ctx, name, policy, objective.sampling_temperature) if fresh else None
            return MixedTexts(objective.student_share, False, cfg.run.seed, sampler)
        case MiniLlmObjective():
            return _policy_rollouts(ctx, name, settings, objective, policy, teacher, groups, steps)
        case _:
            return None


def _sampler(ctx: Context, name: str, policy: Any, temperature: float, **mixed: Any) -> Any:
    from plad.train.rollouts import Sampler

    generate = ctx.config.generate
    return Sampler(policy, name, temperature, generate.max_new_tokens, generate.slots, ctx.config.run.seed, **mixed)


def _policy_rollouts(
    ctx: Context,
    name: str,
    settings: DistillSection,
    objective: MiniLlmObjective,
    policy: Any,
    teacher: Any,
    groups: Sequence[Any],
    steps: int,
) -> Any:
    from plad.scoring.score import checked_route
    from plad.train.groups import longest
    from plad.train.rollouts import PolicyRollouts, batches_of_a_set

    batch = settings.batch_size * settings.gradient_accumulation_steps
    batches = batches_of_a_set(objective.rollouts, batch, objective.ppo_epochs, steps)
    if batches * batch < objective.rollouts:
        log.info("%s: %d rollouts at a time, as %d steps don't suffice for more", name, batches * batch, steps)
    return PolicyRollouts(
        _sampler(ctx, name, policy, 1.0, teacher=teacher, mix=objective.teacher_mix),
        teacher,
        checked_route(policy.model, longest(groups), log.warning),
        groups,
        objective,
        batch,
        batches,
        ctx.config.run.seed,
        _documents(ctx, objective, policy),
        settings.max_tokens,
    )


def _documents(ctx: Context, objective: MiniLlmObjective, policy: Any) -> list[Any]:
    """Stretches of plain text of at most `pretraining_tokens` tokens each."""
    from plad.paths import locate
    from plad.train.texts import documents

    if objective.pretraining is None:
        return []
    file = Path(locate(objective.pretraining, ctx.base))
    if not file.is_file():
        raise DataError("no such file", where=str(file), fix="check distill.objective.pretraining")
    lines = file.read_text(encoding="utf-8").splitlines()
    texts = [_text(line, file, i) for i, line in enumerate(lines, 1)] if file.suffix == ".jsonl" else lines
    found = documents([t for t in texts if t.strip()], policy.tokenizer, objective.pretraining_tokens)
    if not found:
        raise DataError("holds no text", where=str(file), fix="plain text, one document a line, or JSONL with `text`")
    return found


def _text(line: str, file: Path, number: int) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError):
        raise DataError("not a row with `text`", where=f"{file}:{number}", fix='{"text": "..."}') from None
