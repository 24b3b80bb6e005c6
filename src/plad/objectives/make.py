"""From a section of the configuration to the objective it asks for."""

from dataclasses import fields

from plad.config import (
    DpoObjective,
    LipoObjective,
    MarginObjective,
    RankObjective,
    RrhfObjective,
    SftObjective,
    SimpoObjective,
    SlicObjective,
)
from plad.config import Objective as ObjectiveSection
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


def make_objective(section: ObjectiveSection) -> Objective:
    """The objective a configuration asks for."""
    if isinstance(section, SftObjective):
        return SftLoss()
    made = _PAIRWISE[type(section)]
    return made(**{f.name: getattr(section, f.name) for f in fields(made) if hasattr(section, f.name)})
