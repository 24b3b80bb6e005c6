"""Who says which of two answers is better, as a config names it; the judges themselves are in `plad.judges`."""

from pathlib import Path
from typing import ClassVar, Self

from plad.config.engines import Endpoint
from plad.config.kinds import Kind


class JudgeSection(Kind):
    """A judge of answers.

    These are the facts that a config, a plan and a report ask for; `plad.judges.base.JudgeKind` adds what a run does
    with a judge, and is what one derives from.

    Attributes:
        title: what a report calls the kind.
        needs_references: it holds answers against references, and against the target only where there are others.
        nearness: what it goes by between two systems, where that is only likeness to a text.
    """

    group: ClassVar[str] = "plad.judges"
    homes: ClassVar[tuple[str, ...]] = ("plad.judges",)

    title: ClassVar[str] = ""
    needs_references: ClassVar[bool] = False
    nearness: ClassVar[str] = ""

    @classmethod
    def reference(cls) -> "tuple[JudgeSection, ...]":
        """The judges of a config that names none."""
        kind = cls.named("reference")
        assert kind is not None
        return (kind(),)

    @property
    def endpoint(self) -> Endpoint | None:
        """The server that it asks, which may charge; None where it asks none."""
        return None

    @property
    def takes_function(self) -> bool:
        """Whether it calls a Python function that --verify names on the command line."""
        return False

    def placed(self, base: Path, function: str | None = None) -> Self:
        """The section with relative paths resolved against the config's folder `base`, and with --verify's function."""
        return self
