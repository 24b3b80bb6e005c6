"""The table of stages: their order, what each follows, what files it makes.

What a stage depends on and what it does stands in `stages/NAME.py`, as `inputs` and `run`; that is imported where it is
run, so that the table itself needs no library.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

if TYPE_CHECKING:
    from plad.pipeline.resources import Resources
    from plad.rundir.directory import RunDir

Inputs = Mapping[str, object]
Counts = Mapping[str, object]


class Work(Protocol):
    """The module of a stage."""

    def inputs(self, resources: "Resources") -> Inputs:
        """What the outcome depends on beside the stages before it, and nothing else."""
        ...

    def run(self, resources: "Resources", inputs: Inputs) -> Counts:
        """Do the stage; `inputs` are all that it depends on. Returns what it counted."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run.

    Attributes:
        after: stages whose outcome it depends on; one that the config does not ask for is left out.
        outputs: patterns of the files that it makes, which go when the stage, or one before it, is cleaned.
        makes: those of them that must be there as long as it counts as done.
        also: those that may be.
        rewritten: whether they are written again later, with other sizes.
        unit: what is made again where a file of them is lost.
        lasting: those that stay until the stage itself is cleaned by its name.
        command: help of the command that does nothing but run it; empty where there is none.
        on_demand: whether it is also run where a later stage alone is asked for.
        optional: whether it is nothing but a comparison, which the config may not ask for.
    """

    name: str
    after: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    rewritten: bool = False
    unit: Literal["file", "folder", "stage"] = "file"
    lasting: tuple[str, ...] = ()
    command: str = ""
    on_demand: bool = False
    optional: bool = False

    @property
    def work(self) -> Work:
        """What it depends on and does."""
        return cast(Work, import_module(f"plad.pipeline.stages.{self.name}"))


STAGES = (
    Stage("data", outputs=("data",), makes=("data",), on_demand=True),
    Stage(
        "sft",
        ("data",),
        ("sft", "checkpoints/sft-*"),
        makes=("sft",),
        unit="folder",
        command="Only fine-tune teacher and student.",
    ),
    Stage("generate", ("sft",), command="Only sample answers of both."),  # they stay in the ledger
    Stage(
        "pair",
        ("generate",),
        ("pairs.parquet", "teacher_logits", "baselines"),
        makes=("pairs.parquet",),
        rewritten=True,
        command="Only build the preference pairs.",
    ),
    Stage(
        "distill",
        ("pair",),
        ("student", "rounds", "checkpoints/distill*", "checkpoints/rounds"),
        makes=("student",),
        also=("rounds",),
        unit="stage",
        command="Only train the student on the pairs.",
    ),
    Stage(
        "baselines",
        ("distill",),
        ("checkpoints/baselines-*",),
        makes=("baselines",),
        unit="folder",
        lasting=("baselines",),
        command="Only train the methods that the student is compared with.",
        optional=True,
    ),
    Stage(
        "evaluate",
        ("distill", "baselines"),
        ("eval",),
        makes=("eval",),
        command="Only compare the systems on the test rows.",
    ),
    Stage("report", ("evaluate",), ("report",), makes=("report",), rewritten=True),
)
NAMES = tuple(stage.name for stage in STAGES)


def up_to(name: str) -> tuple[Stage, ...]:
    """The stages up to one, itself included."""
    return STAGES[: NAMES.index(name) + 1]


def following(name: str) -> tuple[str, ...]:
    """The names of a stage and of all after it."""
    return NAMES[NAMES.index(name) :]


def clean(run: "RunDir", name: str) -> list[str]:
    """Forget a stage and all after it, and delete what they made; returns those that were done."""
    gone = following(name)
    return run.clean(gone, _outputs(gone), _logged(gone))


def finish_cleaning(run: "RunDir") -> None:
    """Delete what a cleaning that was killed has left."""
    run.finish_cleaning(_outputs(run.manifest.cleaning), _logged(run.manifest.cleaning))


def _outputs(gone: "list[str] | tuple[str, ...]") -> list[str]:
    patterns = [pattern for stage in STAGES if stage.name in gone for pattern in stage.outputs]
    return patterns + [p for stage in STAGES if stage.name in gone[:1] for p in stage.lasting]


def _logged(gone: "list[str] | tuple[str, ...]") -> list[str]:
    """Those whose rows of the training log go: not those whose outputs stay, for they are not trained again."""
    deleted = set(_outputs(gone))
    return [s.name for s in STAGES if s.name in gone and (not s.lasting or deleted.intersection(s.lasting))]
