"""Train a student on pairs by one objective, and keep its best weights."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from plad.config.models import DistillSection, ValidationSection
from plad.errors import DataError
from plad.objectives.sft import SftObjective
from plad.pairs.groups import by_example, chosen_groups
from plad.pairs.texts import only, texts_of_pairs
from plad.pipeline.finished import finished_before, save_finished
from plad.pipeline.resources import Resources
from plad.pipeline.stage import Inputs
from plad.pipeline.students.measure import groups_of, prepare_pairs
from plad.pipeline.students.teacher_logits import prepare_logits
from plad.pipeline.students.validation import checkpoints, keep_best, watched_groups
from plad.policy.load import Policy, load_policy, merge_lora, save_policy
from plad.records import Pair
from plad.rundir.fingerprint import fingerprint
from plad.scoring.score import checked_route
from plad.train.alarms import idle, together
from plad.train.groups import Encoded, keep_fitting, longest, tokens_of
from plad.train.measure import weights_digest
from plad.train.run import TrainingJob, planned_steps, train_policy, trainable
from plad.train.validation import KeepBest, Validation, probe_logps

log = logging.getLogger("plad")

Start = Callable[[], Policy]
"""Gives the policy that training starts from, without an adapter."""


class StudentCounts(TypedDict, total=False):
    """What training a student counted; the counts of `TrainingCounts` and `Encoded` among them.

    Attributes:
        sft: of the warm-up before it.
        tokens_cached: of texts that were there before training and are learnt from.
        best: validation of the weights that were kept.
        chosen_by: what they, or the candidate or round, were chosen by, in words.
        alarms, withdrawn: signs of collapse in them; and those that other weights of the training showed.
        pairs: in a round.
    """

    steps: int
    seconds: float
    train_seconds: float
    peak_memory: int
    samples: dict[str, int]
    sft: "StudentCounts"
    tokens_cached: int
    teacher_seconds: float
    prompts: int
    best: Validation | None
    chosen_by: str
    alarms: list[str]
    withdrawn: list[str]
    stage: str
    chosen: str
    candidates: list[Mapping[str, object]]
    pairs: int


@dataclass(frozen=True, slots=True)
class StudentJob:
    """How a student is made of a policy.

    Attributes:
        inputs: all that the stage depends on.
        name: of the method; its log rows and its checkpoints go under it.
        settings: with a single objective, where they are trained with as they are.
        file: where `pairs` stand.
        preferred: cross-entropy is of the preferred texts, whoever wrote them; else of the teacher's.
    """

    resources: Resources
    inputs: Inputs
    name: str
    settings: DistillSection
    pairs: Sequence[Pair]
    file: Path
    preferred: bool = False

    def checkpoints(self, suffix: str = "") -> Path:
        """Where checkpoints go; see `checkpoints`."""
        return checkpoints(self.resources, self.name, suffix)


def train_student(job: StudentJob, policy: Policy) -> tuple[Policy, StudentCounts]:
    """Train a policy on pairs, or on what a teacher predicts of their texts; keep its best weights by validation.

    Whatever the objective trains on, it takes as many steps as passes over the prompts of the pairs make: prompts that
    it can't use are made up for by further passes over those that it can.

    Returns:
        The trained policy, its adapter merged, and counts.
    """
    resources, settings, (objective,) = job.resources, job.settings, job.settings.objective.alternatives
    needs = objective.needs
    seed = resources.config.run.seed
    counts: dict[str, object] = {}
    if needs.warm_up:
        policy, counts["sft"] = _warmed_up(job, needs.warm_up, policy)
    ranked, encoded, measured = _groups(job, policy)
    watched = watched_groups(resources, settings, policy)
    start = weights_digest(policy.model)
    policy = trainable(policy, resources.config.lora_for(settings, resources.config.student), settings, seed)
    steps = planned_steps(settings, len(by_example(job.pairs)))
    counts["tokens_cached"] = tokens_of(encoded.groups)
    teacher = texts = None
    if needs.logits is not None:
        logits = prepare_logits(resources, job.name, settings, policy, job.pairs, steps)
        encoded, teacher, texts = logits.encoded, logits.teacher, logits.texts
        counts |= logits.counts
    route = checked_route(policy.model, longest(ranked.groups), log.warning)
    keep = keep_best(
        resources,
        job.name,
        settings.validation,
        policy,
        lambda: probe_logps(policy.model, watched, route),
        watched=needs.pairs,
    )
    training = TrainingJob(
        stage=job.name,
        groups=encoded.groups,
        settings=settings,
        objective=objective,
        route=route,
        folder=job.checkpoints(),
        log=resources.run.log,
        seed=seed,
        depends=job.inputs,
        steps=None if planned_steps(settings, len(encoded.groups)) == steps else steps,
        teacher=teacher,
        texts=texts,
        callbacks=[keep.callback] if keep else [],
    )
    trained = train_policy(policy, training)
    a_step = settings.batch_size * settings.gradient_accumulation_steps
    prompts = min(len(encoded.groups), trained["steps"] * a_step)
    counts |= {**trained, "prompts": prompts, **encoded.counts(), **measured}
    if keep is not None:
        counts |= keep.finish()
    policy = merge_lora(policy)
    counts |= _signs(job, keep and keep.callback, unchanged=weights_digest(policy.model) == start)
    return policy, cast(StudentCounts, counts)


def _signs(job: StudentJob, keep: KeepBest | None, *, unchanged: bool) -> dict[str, list[str]]:
    """What is wrong with the weights that are kept, and what seemed to be on the way to them."""
    shares = [row.get("active") for row in job.resources.run.log.of(job.name)]
    did_nothing = idle([share for share in shares if isinstance(share, float | int)], unchanged=unchanged)
    for sentence in did_nothing.values():
        log.warning("%s: %s", job.name, sentence)
    of_answers, withdrawn = (keep.alarms, keep.withdrawn) if keep else ({}, {})
    return {"alarms": [*together(of_answers, did_nothing).values()], "withdrawn": [*withdrawn.values()]}


def _groups(job: StudentJob, policy: Policy) -> tuple[Encoded, Encoded, Mapping[str, int]]:
    """The pairs' groups that fit into the context, what of them is trained on, and counts."""
    settings, (objective,) = job.settings, job.settings.objective.alternatives
    prepared = prepare_pairs(job.resources, settings, policy, job.pairs, job.file)
    groups = groups_of(objective, policy, prepared.pairs, prepared.references)
    ranked = keep_fitting(groups, policy, settings.max_length)
    ranked.require(job.name)
    if objective.needs.pairs or objective.needs.logits is not None:
        return ranked, ranked, prepared.counts
    if job.preferred:
        texts = chosen_groups(prepared.pairs, policy.prompt)
    else:
        texts = only(texts_of_pairs(prepared.pairs, policy.prompt), teacher=True)
    learnt = keep_fitting(texts, policy, settings.max_length)
    if not learnt.groups:
        raise DataError(
            f"no pair holds an answer of the teacher to learn from: {learnt.counts()}",
            where=f"{job.name}.objective",
            fix="raise max_length\nor pair the teacher's answers with the student's: pairs.select",
        )
    return ranked, learnt, prepared.counts


def train_and_keep(job: StudentJob, start: Start, folder: Path) -> StudentCounts:
    """`train_student` into a folder, unless an interrupted run of this stage has finished it; returns its counts."""
    shaping = job.settings.shaping(apart=("lora", "validation", "rounds"))
    made_from = fingerprint([job.inputs, shaping, [p.id for p in job.pairs]])
    known = finished_before(folder, made_from)
    if known is not None:
        log.info("%s: trained before", job.name)
        counts = cast(StudentCounts, known)
    else:
        trained, counts = train_student(job, start())
        save_finished(folder, lambda staging: save_policy(trained, staging), made_from, counts)
    for suffix in ("", "-best", "-sft-done"):
        job.resources.run.drop(f"checkpoints/{job.checkpoints(suffix).name}")
    return counts


def _warmed_up(job: StudentJob, epochs: float, policy: Policy) -> tuple[Policy, StudentCounts]:
    """The policy after passes of cross-entropy on the chosen texts."""
    changes = {"objective": SftObjective(), "epochs": epochs, "validation": ValidationSection(evaluations=0)}
    warm = replace(job, name=f"{job.name}/sft", settings=job.settings.model_copy(update=changes), preferred=True)
    folder = job.checkpoints("-sft-done")
    counts = train_and_keep(warm, lambda: policy, folder)
    return load_policy(job.resources.student, folder=folder), counts
