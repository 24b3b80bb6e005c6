"""What the outcomes of several stages depend on, as it is recorded with them."""

from plad.answers.engine import engine_kind
from plad.config.base import Role
from plad.config.models import TrainSettings, ValidationSection
from plad.pipeline.resources import Resources
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
    if teacher.local:
        return {"teacher": policy_inputs(resources, "teacher")}
    return {"teacher": engine_kind(teacher.engine).source(teacher, resources.base)}


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
        "judge": [j.inputs() for j in resources.judge_sections()[:1]],
        "temperature": config.evaluate.temperature,
        "max_new_tokens": config.evaluation_max_new_tokens,
        "stemmer": config.evaluate.stemmer,
    }
