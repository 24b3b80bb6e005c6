"""What the outcomes of several stages depend on, as it is recorded with them."""

from typing import Any

from plad.config.base import Role
from plad.config.judges import LlmJudge, VerifiableJudge
from plad.config.models import TrainSettings, ValidationSection
from plad.judges.verifiable import function_fingerprint
from plad.pipeline.resources import Resources, teacher_source
from plad.pipeline.stage import Inputs
from plad.policy.fingerprint import model_fingerprint


def policy_inputs(resources: Resources, role: Role) -> dict[str, object]:
    """A policy before fine-tuning."""
    section = resources.policy_section(role)
    settings = resources.config.teacher if role == "teacher" else resources.config.student
    return {
        "settings": settings.shaping(apart=("lora",)),
        "weights": model_fingerprint(section.model, section.revision),
    }


def ready_teacher_inputs(resources: Resources) -> dict[str, object]:
    """A teacher that is not fine-tuned: what its answers depend on."""
    teacher = resources.config.teacher
    if teacher.sft:
        return {}
    return {"teacher": policy_inputs(resources, "teacher") if teacher.local else teacher_source(resources)}


def judge_inputs(section: Any) -> Inputs:
    """A judge, its model path resolved."""
    if isinstance(section, LlmJudge):
        return section.shaping()
    settings = section.shaping(apart=("model",))
    if isinstance(section, VerifiableJudge):
        return settings if section.function is None else {**settings, **function_fingerprint(section.function)}
    model = getattr(section, "model", None)
    return settings if model is None else {**settings, "weights": model_fingerprint(model, section.revision)}


def lora_inputs(resources: Resources, settings: TrainSettings, role: Role) -> dict[str, object] | None:
    """The adapter that is trained."""
    lora = resources.config.lora_for(settings, resources.policy_section(role))
    return None if lora is None else lora.model_dump(mode="json")


def validation_inputs(resources: Resources, validation: ValidationSection) -> dict[str, object] | None:
    """What the choice of the best weights depends on beside the rows."""
    config = resources.config
    if not validation.evaluations:
        return None
    return {
        **validation.model_dump(mode="json"),
        "judge": [judge_inputs(j) for j in resources.judge_sections()[:1]],
        "temperature": config.evaluate.temperature,
        "max_new_tokens": config.evaluation_max_new_tokens,
        "stemmer": config.evaluate.stemmer,
    }
