"""What training on a teacher's logits needs beside pairs: the texts of both, the teacher, and fresh samples."""

import gc
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plad.config.distillation import (
    DistillmObjective,
    FDistillObjective,
    GkdObjective,
    KdObjective,
    LogitObjective,
    MiniLlmObjective,
    StorableObjective,
)
from plad.config.models import DistillSection, ModelSection
from plad.config.objectives import Objective
from plad.errors import DataError
from plad.pipeline.context import Context, fine_tuned, weights
from plad.records import Pair
from plad.rundir.directory import fingerprint, is_complete

log = logging.getLogger("plad")


@dataclass(frozen=True, slots=True)
class OnLogits:
    """What training on logits takes.

    Attributes:
        encoded: groups, one a prompt; its chosen texts are the teacher's (or the data's), the others the student's.
        teacher: predicts the same tokens.
        texts: says what each step trains on; None for the groups themselves.
        counts: tokens of those texts that models wrote before training; seconds the teacher took to score them.
    """

    encoded: Any
    teacher: Any
    texts: Any
    counts: dict[str, Any]


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
    from plad.train.groups import keep_fitting, longest, tokens_of

    objective = settings.objective
    assert isinstance(objective, LogitObjective)
    groups, written = _groups(ctx, objective, policy, pairs)
    encoded = keep_fitting(groups, policy, settings.max_length)
    if not encoded.groups:
        raise DataError(
            f"no prompt has the texts that {objective.type} trains on: {encoded.counts()}",  # type: ignore[attr-defined]
            where=f"{name}.objective",
            fix="raise max_length\nor sample both models: generate.samples, generate.student_samples",
        )
    teacher, seconds = _teacher(ctx, objective, policy, encoded.groups, longest(encoded.groups))
    texts = _source(ctx, name, settings, policy, teacher, encoded.groups, steps)
    counts = {"tokens_cached": tokens_of(encoded.groups) if written else 0, "teacher_seconds": round(seconds, 1)}
    return OnLogits(encoded, teacher, texts, counts)


# -- texts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts that an objective trains on.

    Attributes:
        teacher, student: which answers of before training it reads; with neither, prompts alone matter.
        share: of the steps that are on the student's texts; 0 where every step trains on what its groups hold.
        both: whether a step on the student's texts keeps the teacher's beside them.
        temperature: of the student's fresh samples; None where those of before training are taken.
    """

    teacher: bool = True
    student: bool = False
    share: float = 0.0
    both: bool = False
    temperature: float | None = None


def texts_for(objective: LogitObjective) -> Texts:
    """What each objective reads."""
    match objective:
        case KdObjective() | FDistillObjective(divergence="kl"):
            return Texts()
        case FDistillObjective(divergence=divergence, student_samples="cached"):
            return Texts(teacher=divergence != "rkl", student=True)
        case FDistillObjective(divergence=divergence):
            both = divergence != "rkl"
            return Texts(teacher=both, share=1.0, both=both, temperature=objective.sampling_temperature)
        case GkdObjective(student_share=share):
            return Texts(teacher=share < 1, share=share, temperature=objective.sampling_temperature)
        case DistillmObjective(student_share=share, student_samples="cached"):
            return Texts(teacher=share < 1, student=share > 0, share=share)
        case DistillmObjective(student_share=share):
            return Texts(teacher=share < 1, share=share, temperature=objective.sampling_temperature)
        case MiniLlmObjective():
            return Texts(teacher=False)
        case _:
            raise AssertionError(objective)


def _groups(ctx: Context, objective: LogitObjective, policy: Any, pairs: Sequence[Pair]) -> tuple[list[Any], bool]:
    """One group a prompt with the texts that the objective may train on, and whether models wrote them."""
    from plad.train.texts import only, texts_of_pairs, with_targets

    groups = texts_of_pairs(pairs, policy.prompt)
    if isinstance(objective, KdObjective):
        targets = {e.id: e.target for e in ctx.examples("distill")}
        complete = all((targets.get(g.id) or "").strip() for g in groups)
        if objective.text == "target" or (objective.text == "auto" and complete):
            return with_targets(groups, targets, policy.prompt), False
    read = texts_for(objective)
    if not read.teacher and not read.student:
        return groups, False
    return only(groups, teacher=read.teacher, student=read.student), True


# -- the teacher --------------------------------------------------------------------------------------


def _teacher(
    ctx: Context, objective: LogitObjective, policy: Any, groups: Sequence[Any], probe: Any
) -> tuple[Any, float]:
    """The teacher in memory, or what it said, from disk; and the seconds that storing it took."""
    from plad.distillers.topk import StoredTeacher
    from plad.scoring.head import check_head, head_width

    check_head(policy.model, probe)
    if not isinstance(objective, StorableObjective) or objective.teacher_logits == "live":
        return _live(ctx, objective, policy, probe), 0.0
    width = head_width(policy.model)
    texts = fingerprint([[g.prompt, g.completions] for g in groups])
    made_of = [weights(ctx, "teacher"), objective.teacher_dtype, objective.top_k, objective.temperature, width, texts]
    folder = ctx.run / "teacher_logits" / fingerprint(made_of)
    if not is_complete(folder):
        _store(ctx, objective, policy, groups, probe, folder)
        gc.collect()
    stored = StoredTeacher.read(folder)
    return stored, stored.seconds


def _live(ctx: Context, objective: LogitObjective, policy: Any, probe: Any) -> Any:
    import torch

    from plad.distillers.divergence import LiveTeacher
    from plad.policy.vocabulary import require_same_format, require_same_vocabulary
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
    from plad.distillers.topk import store_teacher
    from plad.progress import track
    from plad.scoring.head import head_width

    teacher = _live(ctx, objective, policy, probe)
    with track("teacher logits", len(groups), "prompts") as bar:
        store_teacher(
            teacher,
            groups,
            folder,
            k=objective.top_k,
            width=head_width(policy.model),
            temperature=objective.temperature,
            advance=bar.advance,
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
    from plad.distillers.rollouts import MixedTexts

    objective = settings.objective
    assert isinstance(objective, LogitObjective)
    if isinstance(objective, MiniLlmObjective):
        return _policy_rollouts(ctx, name, settings, objective, policy, teacher, groups, steps)
    read = texts_for(objective)
    if not read.share:
        return None
    sampler = None if read.temperature is None else _sampler(ctx, name, policy, read.temperature)
    return MixedTexts(read.share, read.both, ctx.config.run.seed, sampler)


def _sampler(ctx: Context, name: str, policy: Any, temperature: float, **mixed: Any) -> Any:
    from plad.distillers.rollouts import Sampler

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
    from plad.distillers.rollouts import PolicyRollouts, batches_of_a_set
    from plad.scoring.score import checked_route
    from plad.train.groups import longest

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
        _documents(ctx, name, objective, policy),
        settings.max_tokens,
    )


def _documents(ctx: Context, name: str, objective: MiniLlmObjective, policy: Any) -> list[Any]:
    """Stretches of plain text of at most `pretraining_tokens` tokens each."""
    from plad.data.sources import locate
    from plad.train.texts import documents

    if objective.pretraining is None:
        return []
    file = Path(locate(objective.pretraining, ctx.base))
    if not file.is_file():
        raise DataError("no such file", where=str(file), fix=f"check the pretraining of {name}")
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
