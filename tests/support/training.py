"""Training runs whose rows are looked at as they come."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plad.rundir.training_log import TrainingLog


class Emitting(TrainingLog):
    """A log whose rows go to a function, and to no file."""

    def __init__(self, emit: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(Path("nowhere"))
        self.emit = emit

    def append(self, row: Mapping[str, object]) -> None:
        self.emit(dict(row))
