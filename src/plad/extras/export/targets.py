"""What a run can be handed over as: one row a target.

To add one, write a module with a function `export_NAME` from a `Handover` to the lines that are printed, and name both
here.
"""

from collections.abc import Callable
from importlib import import_module

from plad.extras.export.handover import Handover

_PAIRS = "the pairs as each takes preferences"
TARGETS = {  # name -> module of this package, which is imported once it is asked for, and words for the help
    "trl": ("pairs", _PAIRS),
    "llamafactory": ("pairs", _PAIRS),
    "axolotl": ("pairs", _PAIRS),
    "merged": ("merged", "the student as one model folder"),
    "gguf": ("gguf", "the student as one file"),
    "hub": ("hub", "the student with its card, uploaded with HF_TOKEN"),
}


def export(target: str, handover: Handover) -> str:
    """Hand over; returns what to print.

    Raises:
        PladError: the run has none yet, its files are damaged, the place is taken, or the target refuses.
    """
    module = import_module(f"plad.extras.export.{TARGETS[target][0]}")
    write: Callable[[Handover], str] = getattr(module, f"export_{target}")
    return write(handover)


def targets_help() -> str:
    """All targets with what they are."""
    names: dict[str, list[str]] = {}
    for name, (_, words) in TARGETS.items():
        names.setdefault(words, []).append(name)
    return " ".join(f"{', '.join(same)}: {words}." for words, same in names.items())
