"""What training on a teacher's logits needs beside pairs: the texts of both, the teacher, and fresh samples."""

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plad.config.models import DistillSection, ModelSection
from plad.config.objectives import DocumentNeeds, LogitNeeds, ObjectiveSection, TextNeeds
from plad.data.sources import locate
from plad.distillers.base import LogitObjective, trainable_objective
from plad.errors import DataError, PolicyError
from plad.pipeline.resources import Resources, fine_tuned, weights
from plad.progress import track
from plad.records import Pair
from plad.rundir.atomic import is_complete, verify_dir
from plad.rundir.fingerprint import fingerprint

if TYPE_CHECKING:
    from plad.distillers.logits.compare import LiveTeacher, Teacher
    from plad.distillers.logits.losses import Document
    from plad.distillers.samples.rollouts import TextSource
    from plad.policy.load import Policy
    from plad.scoring.layout import Group
    from plad.train.groups import Encoded

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

    encoded: "Encoded"
    teacher: "Teacher"
    texts: "TextSource | None"
    counts: dict[str, float]


def check_logits(objectives: Sequence[ObjectiveSection], student: ModelSection, teacher: ModelSection) -> None:
    """Refuse objectives that the models can't be trained with; no weights are loaded.

    Those on logits need models of the same tokens, and some of them no encoder-decoder.

    Args:
        student, teacher: with their models' places resolved.

    Raises:
        ConfigError: an objective of another package can't be trained with.
        PolicyError: vocabularies or prompt formats differ, or a model is of the wrong kind.
    """
    trained = [trainable_objective(objective) for objective in objectives]
    _check_kinds(trained, {"student": student, "teacher": teacher})
    if not any(objective.needs.logits for objective in trained):
        return
    from plad.policy.folder import check_policy
    from plad.policy.vocabulary import require_same_format, require_same_vocabulary

    ours, theirs = check_policy(student, "student"), check_policy(teacher, "teacher")
    require_same_vocabulary(ours.tokenizer, theirs.tokenizer)
    require_same_format(ours.describe(), theirs.describe())


def _check_kinds(objectives: Sequence[ObjectiveSection], models: Mapping[str, ModelSection]) -> None:
    choosy = [(o.tag(), why) for o in objectives if (why := o.needs.decoder_only) is not None]
    if not choosy:
        return
    from plad.policy.folder import is_encoder_decoder

    for role, section in models.items():
        if is_encoder_decoder(section):
            tag, why = choosy[0]
            raise PolicyError(
                f"objective {tag} needs decoder-only models, and {section.model} is an encoder-decoder: {why}",
                where=f"{role}.model",
                fix="choose another objective or set it so (gkd, distillm, kd and rank take encoder-decoders)",
            )


def prepare_logits(
    ctx: Resources, name: str, settings: DistillSection, policy: "Policy", pairs: Sequence[Pair], steps: int
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
    from plad.distillers.samples.rollouts import StudentSampling
    from plad.train.groups import keep_fitting, longest, tokens_of

    (objective,) = settings.objective.alternatives
    needs = objective.needs.logits
    assert isinstance(objective, LogitObjective)
    assert needs is not None
    groups, written = _groups(ctx, needs.texts, policy, pairs)
    encoded = keep_fitting(groups, policy, settings.max_length)
    if not encoded.groups:
        raise DataError(
            f"no prompt has the texts that {objective.tag()} trains on: {encoded.counts()}",
            where=f"{name}.objective",
            fix="raise max_length\nor sample both models: generate.samples, generate.student_samples",
        )
    probe = longest(encoded.groups)
    teacher, seconds = _teacher(ctx, needs, policy, encoded.groups, probe)
    generate = ctx.config.generate
    texts = objective.source(
        StudentSampling(
            name=name,
            policy=policy,
            teacher=teacher,
            prompts=encoded.groups,
            probe=probe,
            steps=steps,
            batch=settings.batch_size * settings.gradient_accumulation_steps,
            max_new_tokens=generate.max_new_tokens,
            slots=generate.slots,
            seed=ctx.config.run.seed,
            documents=_documents(ctx, name, objective.needs.documents, policy),
            max_tokens=settings.max_tokens,
        )
    )
    counts = {"tokens_cached": tokens_of(encoded.groups) if written else 0, "teacher_seconds": round(seconds, 1)}
    return OnLogits(encoded, teacher, texts, counts)


# -- texts --------------------------------------------------------------------------------------------


def _groups(ctx: Resources, wanted: TextNeeds, policy: "Policy", pairs: Sequence[Pair]) -> "tuple[list[Group], bool]":
    """One group a prompt with the texts that are trained on, and whether models wrote them."""
    from plad.pairs.texts import only, texts_of_pairs, with_targets

    groups = texts_of_pairs(pairs, policy.prompt)
    if wanted.targets != "never":
        targets = {e.id: e.target for e in ctx.examples("distill")}
        complete = all((targets.get(g.id) or "").strip() for g in groups)
        if wanted.targets == "always" or complete:
            return with_targets(groups, targets, policy.prompt), False
    if not wanted.teacher and not wanted.student:
        return groups, False
    return only(groups, teacher=wanted.teacher, student=wanted.student), True


# -- the teacher --------------------------------------------------------------------------------------


def _teacher(
    ctx: Resources, needs: LogitNeeds, policy: "Policy", groups: "Sequence[Group]", probe: "Group"
) -> "tuple[Teacher, float]":
    """The teacher in memory, or what it said, from disk; and the seconds that storing it took."""
    from plad.distillers.logits.stored import StoredTeacher, store_teacher
    from plad.scoring.head import check_head, head_width

    check_head(policy.model, probe)
    if needs.top_k is None:
        return _live(ctx, needs, policy, probe), 0.0
    width = head_width(policy.model)
    texts = fingerprint([[g.prompt, g.completions] for g in groups])
    made_of = [weights(ctx, "teacher"), needs.dtype, needs.top_k, needs.temperature, width, texts]
    folder = ctx.run / "teacher_logits" / fingerprint(made_of)
    if not is_complete(folder):
        with track("teacher logits", len(groups), "prompts") as bar:
            store_teacher(
                _live(ctx, needs, policy, probe),
                groups,
                folder,
                k=needs.top_k,
                width=width,
                temperature=needs.temperature,
                advance=bar.advance,
            )
        gc.collect()
    verify_dir(folder)
    stored = StoredTeacher.read(folder)
    return stored, stored.seconds


def _live(ctx: Resources, needs: LogitNeeds, policy: "Policy", probe: "Group") -> "LiveTeacher":
    import torch

    from plad.distillers.logits.compare import LiveTeacher
    from plad.policy.vocabulary import require_same_format, require_same_vocabulary
    from plad.scoring.head import check_head
    from plad.scoring.score import checked_route

    dtype = None if needs.dtype == "auto" else needs.dtype
    teacher = fine_tuned(ctx, "teacher", dtype=dtype)
    require_same_vocabulary(policy.tokenizer, teacher.tokenizer)
    require_same_format(policy.prompt.describe(), teacher.prompt.describe())
    device = policy.device if needs.device == "auto" else torch.device(needs.device)
    model = teacher.model.requires_grad_(False).eval()
    torch.nn.Module.to(model, device)  # as typed by torch: transformers wraps it
    check_head(model, probe)
    log.info("teacher for logits: %s on %s", str(model.dtype).removeprefix("torch."), device)
    return LiveTeacher(model, checked_route(model, probe, log.warning))


# -- plain text -----------------------------------------------------------------------------------------


def _documents(ctx: Resources, name: str, needs: DocumentNeeds | None, policy: "Policy") -> "list[Document]":
    """Stretches of plain text of at most so many tokens each."""
    from plad.distillers.samples.documents import documents

    if needs is None:
        return []
    file = Path(locate(needs.file, ctx.base))
    if not file.is_file():
        raise DataError("no such file", where=str(file), fix=f"check the pretraining of {name}")
    lines = file.read_text(encoding="utf-8").splitlines()
    texts = [_text(line, file, i) for i, line in enumerate(lines, 1)] if file.suffix == ".jsonl" else lines
    stretches = documents([t for t in texts if t.strip()], policy.tokenizer, needs.tokens)
    if not stretches:
        raise DataError("holds no text", where=str(file), fix="plain text, one document a line, or JSONL with `text`")
    return stretches


def _text(line: str, file: Path, number: int) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError):
        raise DataError("not a row with `text`", where=f"{file}:{number}", fix='{"text": "..."}') from None
