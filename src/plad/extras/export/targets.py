"""What a run can be handed over as: one row a target.

To add one, write a module with a function from a `Handover` to the lines that are printed, and name it here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from plad.extras.export.gguf import export_gguf
from plad.extras.export.handover import Handover
from plad.extras.export.hub import export_hub
from plad.extras.export.merged import export_merged
from plad.extras.export.pairs import export_axolotl, export_llamafactory, export_trl


@dataclass(frozen=True, slots=True)
class Target:
    """A way to hand over.

    Attributes:
        what: for the help of --to; targets with the same words stand together.
    """

    export: Callable[[Handover], str]
    what: str


_PAIRS = "the pairs as each takes preferences"
TARGETS = {
    "trl": Target(export_trl, _PAIRS),
    "llamafactory": Target(export_llamafactory, _PAIRS),
    "axolotl": Target(export_axolotl, _PAIRS),
    "merged": Target(export_merged, "the student as one model folder"),
    "gguf": Target(export_gguf, "the student as one file"),
    "hub": Target(export_hub, "the student with its card, uploaded with HF_TOKEN"),
}


def targets_help() -> str:
    """All targets with what they are."""
    names: dict[str, list[str]] = {}
    for name, target in TARGETS.items():
        names.setdefault(target.what, []).append(name)
    return " ".join(f"{', '.join(same)}: {what}." for what, same in names.items())
