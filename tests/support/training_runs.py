"""Training runs: their rows, a log that hands its rows on, and a run in a process of its own, to be killed.

python -m tests.support.training_runs FOLDER
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from plad.config.models import LoraSection, TrainSettings
from plad.objectives.plad import RankObjective
from plad.policy.load import attach
from plad.rundir.training_log import TrainingLog
from plad.scoring.layout import Group
from plad.scoring.score import Route
from plad.train.run import TrainingJob, train_policy
from plad.train.validation import KeepBest
from tests.support.tiny_models import tiny_policy


class Emitting(TrainingLog):
    """A log whose rows go to a function, and to no file."""

    def __init__(self, emit: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(Path("nowhere"))
        self.emit = emit

    def append(self, row: Mapping[str, object]) -> None:
        self.emit(dict(row))


def groups() -> list[Group]:
    random = torch.Generator().manual_seed(5)

    def text(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(6, 300, (n,), generator=random).tolist())

    return [Group(f"row{i}", text(5 + i % 3), ((*text(4), 2), (*text(3), 2))) for i in range(24)]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    policy = attach(tiny_policy(), LoraSection(dropout=0.3))
    settings = TrainSettings(epochs=3, learning_rate=1e-2, batch_size=4, checkpoint_steps=2)
    log = TrainingLog(folder / "metrics.jsonl")

    def validate() -> dict[str, float]:
        norm = sum(p.detach().norm().item() for p in policy.model.parameters() if p.requires_grad)
        return {"win_rate": norm % 1.0}

    keep = KeepBest(policy.model, validate, log, "t", evaluations=6, folder=folder / "best")
    train_policy(
        policy,
        TrainingJob(
            groups=groups(),
            settings=settings,
            objective=RankObjective(),
            route=Route.SEGMENTS,
            stage="t",
            folder=folder / "checkpoints",
            seed=3,
            callbacks=[keep],
            log=log,
        ),
    )
    save_file(
        {n: p.detach().contiguous() for n, p in policy.model.named_parameters() if p.requires_grad},
        folder / "final.safetensors",
    )
    keep.restore()
    (folder / "best.json").write_text(json.dumps(keep.best()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
