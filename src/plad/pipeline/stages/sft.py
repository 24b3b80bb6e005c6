"""Fine-tune teacher and student on D0."""

import gc
import logging
from typing import cast

from plad.config.base import ROLES, Role
from plad.config.models import PruneInit, StudentSection, ValidationSection
from plad.config.root import Config
from plad.objectives.sft import SftObjective
from plad.pipeline.engines import check_teacher
from plad.pipeline.finished import finished_before, save_finished
from plad.pipeline.inputs import lora_inputs, policy_inputs, validation_inputs
from plad.pipeline.resources import Resources
from plad.pipeline.stage import Counts, Inputs
from plad.pipeline.students.ending import limit_of, validated, with_limit
from plad.pipeline.students.teacher_logits import check_logits
from plad.pipeline.students.validation import checkpoints, keep_best
from plad.policy.folder import check_policy
from plad.policy.load import Policy, load_policy, save_policy
from plad.policy.prune import prune_layers
from plad.records import Example
from plad.rundir.fingerprint import fingerprint
from plad.scoring.score import checked_route
from plad.train.groups import keep_fitting, longest, sft_groups
from plad.train.run import TrainingJob, train_policy, trainable
from plad.train.validation import Validation

log = logging.getLogger("plad")


def signature(inputs: Inputs, role: str) -> str:
    """What a fine-tuned policy is made from, as a hash."""
    return fingerprint([inputs["data"], inputs[role]])


def _start_policy(resources: Resources, role: Role, inputs: Inputs, influence_prompts: list[Example]) -> Policy:
    """The policy that fine-tuning starts from, without an adapter; a pruned one is kept on disk."""
    section = resources.policy_section(role)
    init = section.init if isinstance(section, StudentSection) else None
    if not isinstance(init, PruneInit):
        return load_policy(section)
    folder, made_from = resources.run / "sft/student_base", signature(inputs, role)
    if finished_before(folder, made_from) is None:
        prompts = [e.prompt for e in influence_prompts[: init.prompts]]
        pruned = prune_layers(load_policy(section), init.layers, prompts)
        save_finished(folder, lambda staging: save_policy(pruned, staging), made_from, {"layers": init.layers})
        del pruned
    return load_policy(section, folder=folder)


def _fine_tune(resources: Resources, inputs: Inputs, role: Role) -> Counts:
    config = resources.config
    folder, made_from = resources.run / f"sft/{role}", signature(inputs, role)
    known = finished_before(folder, made_from)
    if known is not None:
        return known
    rows = resources.examples("sft")
    settings = config.sft.settings(role)
    policy = _start_policy(resources, role, inputs, rows)
    for note in policy.notes:
        log.info("%s: %s", role, note)
    encoded = keep_fitting(sft_groups(rows, policy.prompt), policy, settings.max_length)
    encoded.require(f"sft.{role}")
    policy = trainable(policy, config.lora_for(settings, getattr(config, role)), settings, config.run.seed)
    stage = f"sft/{role}"
    validation = config.sft.validation if role == "teacher" else ValidationSection(evaluations=0)
    keep = keep_best(with_limit(resources), stage, validation, policy)
    job = TrainingJob(
        stage=stage,
        groups=encoded.groups,
        settings=settings,
        objective=SftObjective(),
        route=checked_route(policy.model, longest(encoded.groups), log.warning),
        folder=checkpoints(resources, stage),
        log=resources.run.log,
        seed=config.run.seed,
        depends={"data": inputs["data"], role: inputs[role]},
        callbacks=[keep.callback] if keep else [],
    )
    counts: dict[str, object] = {**train_policy(policy, job), **encoded.counts()}
    if keep is not None:
        counts |= keep.finish()
    counts |= validated(resources, role, policy, cast("Validation | None", counts.get("best")))
    save_finished(folder, lambda staging: save_policy(policy, staging), made_from, counts)
    return counts


def inputs(resources: Resources) -> Inputs:
    """Each policy that is fine-tuned, with its settings."""
    config = resources.config
    roles: dict[str, dict[str, object]] = {}
    for role in _trained(config):
        settings = config.sft.settings(role)
        roles[role] = policy_inputs(resources, role) | {
            "sft": {**settings.shaping(apart=("lora",)), "lora": lora_inputs(resources, settings, role)}
        }
    if config.teacher.sft:
        chosen = validation_inputs(resources, config.sft.validation)
        roles["teacher"]["validation"] = chosen and chosen | {"max_new_tokens": limit_of(resources)}
    return roles


def _trained(config: Config) -> list[Role]:
    return [role for role in ROLES if role == "student" or config.teacher.sft]


def run(resources: Resources, inputs: Inputs) -> Counts:
    """D0 -> sft/teacher and sft/student (Algorithm 1, step 1)."""
    check_teacher(resources)
    for role in ROLES:  # both, before the first is trained: the second's mistake shows at once
        if role == "student" or resources.config.teacher.local:
            check_policy(resources.policy_section(role), role, resources.config.adapters(role))
    check_logits(resources.config.objectives, resources.student, resources.teacher)
    counts: dict[str, object] = {}
    for role in _trained(resources.config):
        counts[role] = _fine_tune(resources, inputs, role)
        gc.collect()
    return counts
