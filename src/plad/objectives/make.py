"""From a section of the configuration to the objective it asks for."""

from dataclasses import fields
from functools import partial

from torch import nn

from plad.config.distillation import (
    DistillmObjective,
    FDistillObjective,
    GkdObjective,
    KdObjective,
    LogitObjective,
    MiniLlmObjective,
)
from plad.config.objectives import (
    DpoObjective,
    LipoObjective,
    MarginObjective,
    RankObjective,
    RrhfObjective,
    SftObjective,
    SimpoObjective,
    SlicObjective,
)
from plad.config.objectives import SingleObjective as ObjectiveSection
from plad.distillers.distillation import (
    forward_kl,
    generalized_jsd,
    js_of_student,
    js_of_teacher,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    total_variation,
)
from plad.distillers.divergence import Teacher
from plad.distillers.logits import DivergenceLoss, MiniLlmLoss, Share
from plad.objectives.listwise import LipoLoss, RrhfLoss
from plad.objectives.objective import Objective, SftLoss
from plad.objectives.pairwise import DpoLoss, MarginLoss, Pairwise, RankLoss, SimpoLoss, SlicLoss

_PAIRWISE: dict[type, type[Pairwise]] = {
    RankObjective: RankLoss,
    MarginObjective: MarginLoss,
    DpoObjective: DpoLoss,
    SlicObjective: SlicLoss,
    RrhfObjective: RrhfLoss,
    LipoObjective: LipoLoss,
    SimpoObjective: SimpoLoss,
}


def make_objective(
    section: ObjectiveSection, student: nn.Module | None = None, teacher: Teacher | None = None
) -> Objective:
    """The objective a configuration asks for.

    Args:
        student, teacher: for an objective on logits, the model that is trained and what it is compared with.
    """
    if isinstance(section, LogitObjective):
        assert student is not None
        assert teacher is not None
        return _on_logits(section, student, teacher)
    if isinstance(section, SftObjective):
        return SftLoss()
    made = _PAIRWISE[type(section)]
    return made(**{f.name: getattr(section, f.name) for f in fields(made) if hasattr(section, f.name)})


def _on_logits(section: LogitObjective, student: nn.Module, teacher: Teacher) -> Objective:
    match section:
        case KdObjective():
            share = Share(forward_kl)
            return DivergenceLoss(
                student, teacher, share, None, section.temperature, section.temperature**2, section.ratio
            )
        case FDistillObjective():
            shares = _f_distill(section)
            return DivergenceLoss(student, teacher, *shares, section.temperature, section.temperature**2)
        case GkdObjective():
            of = partial(generalized_jsd, beta=section.beta)
            return DivergenceLoss(student, teacher, Share(of), Share(of), section.temperature)
        case DistillmObjective():
            of = partial(skew_kl if section.divergence == "skl" else skew_reverse_kl, skew=section.skew)
            return DivergenceLoss(student, teacher, Share(of), Share(of))
        case MiniLlmObjective():
            return MiniLlmLoss(student, teacher, section.ppo_clip, section.single_step)
        case _:
            raise AssertionError(section)


def _f_distill(section: FDistillObjective) -> tuple[Share | None, Share | None]:
    """What is taken on the teacher's texts, and on the student's.

    Source: f-distill (arXiv 2307.15190), section 2.
    """
    match section.divergence:
        case "kl":
            return Share(forward_kl), None
        case "rkl":
            return None, Share(reverse_kl)
        case "js":
            of_teacher, of_student = (partial(of, beta=section.beta) for of in (js_of_teacher, js_of_student))
            return Share(of_teacher, 1 - section.beta), Share(of_student, section.beta)
        case "tvd":
            return Share(total_variation, 0.5), Share(total_variation, 0.5)
