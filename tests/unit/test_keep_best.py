"""Validation while training: the best weights are kept, and training ends where nothing gets better."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from plad.config.models import TrainSettings
from plad.objectives.plad import RankObjective
from plad.rundir.training_log import TrainingLog
from plad.scoring.score import Route
from plad.train.run import TrainingJob, train_policy
from plad.train.validation import KeepBest
from tests.support.tiny_models import tiny_policy
from tests.support.training_runs import Emitting, groups


class Run:
    """A model of one weight whose validations are given; its steps are taken by hand."""

    def __init__(self, folder: Path, rates: list[float], log: TrainingLog | None = None, **options: Any) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.rows: list[dict[str, Any]] = []
        self.said: list[str] = []
        given = iter({"win_rate": rate, "words": 10.0, "ended": 1.0} for rate in rates)
        self.keep = KeepBest(
            self.model,
            lambda: next(given),
            Emitting(self.rows.append) if log is None else log,
            "t",
            evaluations=len(rates) - 1,
            folder=folder / "best",
            warn=self.said.append,
            **options,
        )
        self.args = TrainingArguments(output_dir=str(folder / "out"), use_cpu=True, report_to="none")
        self.state, self.control = TrainerState(max_steps=len(rates) - 1), TrainerControl()

    def train(self) -> int:
        """Steps taken; the weight after step n is n."""
        self.keep.on_train_begin(self.args, self.state, self.control)
        while self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            self.state.global_step += 1
            torch.nn.init.constant_(self.model.weight, self.state.global_step)
            self.keep.on_step_end(self.args, self.state, self.control)
        return self.state.global_step


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.2, 0.3, 0.5, 0.4])
    assert run.train() == 3
    assert run.keep.finish("best")["step"] == 2  # type: ignore[index]
    assert run.model.weight.item() == 2


def test_the_last_weights_stay_where_they_are_wanted(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.2, 0.3, 0.5, 0.4])
    run.train()
    assert run.keep.finish("last") == {"step": 3, "validation": {"win_rate": 0.4, "words": 10.0, "ended": 1.0}}
    assert run.model.weight.item() == 3


@pytest.mark.parametrize(("patience", "steps"), [(1, 3), (2, 4), (3, 6), (None, 6)])
def test_training_ends_after_so_many_validations_without_a_better_one(
    tmp_path: Path, patience: int | None, steps: int
) -> None:
    run = Run(tmp_path, [0.2, 0.3, 0.5, 0.4, 0.4, 0.9, 0.9], patience=patience)
    assert run.train() == steps
    assert bool(run.said) == (steps < 6)


def test_a_resumed_run_remembers_what_was_found(tmp_path: Path) -> None:
    """0.5 at step 2 was the best; after a kill at step 3 the next worse one makes two in a row."""
    first = Run(tmp_path, [0.2, 0.3, 0.5, 0.4, 0.4, 0.9], patience=2)
    first.state.max_steps = 3
    first.train()
    log = TrainingLog(tmp_path / "metrics.jsonl")
    for row in first.rows:
        log.append(row)
    second = Run(tmp_path, [0.4, 0.9, 0, 0, 0, 0], log, patience=2)
    second.state.global_step = 3
    assert second.train() == 4


def train(folder: Path) -> tuple[int, dict[str, Any]]:
    """Train with given win rates until two validations gain nothing; the last step, and the best validation."""
    rates = {0: 0.3, 2: 0.4, 4: 0.6, 6: 0.5, 8: 0.6, 10: 0.9, 12: 0.9}
    policy, log = tiny_policy(), TrainingLog(folder / "metrics.jsonl")

    def steps() -> list[Any]:
        return [row["step"] for row in log.of("t")]

    keep = KeepBest(
        policy.model,
        lambda: {"win_rate": rates[max(steps(), default=0)], "words": 9.0, "ended": 1.0},
        log,
        "t",
        evaluations=6,
        folder=folder / "best",
        patience=2,
    )
    train_policy(
        policy,
        TrainingJob(
            groups=groups(),
            settings=TrainSettings(epochs=2, learning_rate=1e-2, batch_size=4, checkpoint_steps=2),
            objective=RankObjective(),
            route=Route.SEGMENTS,
            stage="t",
            folder=folder / "checkpoints",
            seed=3,
            callbacks=[keep],
            log=log,
        ),
    )
    best = keep.finish("best")
    assert best is not None
    return max(steps()), best


def test_the_same_command_after_an_early_stop_does_not_go_on_behind_it(tmp_path: Path) -> None:
    """Every step but the last has its checkpoint: one of the step that stopped would be resumed from."""
    first = train(tmp_path)
    assert first == (8, {"step": 4, "validation": {"win_rate": 0.6, "words": 9.0, "ended": 1.0}})
    assert train(tmp_path) == first


def test_each_sign_of_collapse_is_told_once(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.2, 0.3, 0.5], watched=True)
    words = iter([10.0, 3.0, 2.0])
    run.keep.validate = lambda: {"win_rate": 0.3, "words": next(words), "ended": 1.0}
    run.train()
    assert len(run.said) == 1
    assert "shorter" in run.said[0]
    assert [r["step"] for r in run.rows if "alarm" in r] == [1]
    assert run.keep.alarms == {"answers get shorter": run.keep.alarms["answers get shorter"]}
    assert "2.0 words" in run.keep.alarms["answers get shorter"]  # the latest figures


def test_a_resumed_run_remembers_its_alarms(tmp_path: Path) -> None:
    """An alarm of step 1; after a kill it isn't told again, and is withdrawn where the kept weights don't show it."""
    words = [10.0, 3.0, 3.0, 10.0]
    first = Run(tmp_path, [0.2, 0.3, 0.2, 0.2], TrainingLog(tmp_path / "metrics.jsonl"), watched=True)
    first.keep.validate = lambda: {"win_rate": 0.2, "words": words.pop(0), "ended": 1.0}
    first.state.max_steps = 1
    first.train()
    second = Run(tmp_path, [0.2, 0.9, 0, 0], first.keep.log, watched=True)
    second.keep.validate = lambda: {"win_rate": 0.3 * len(words), "words": words.pop(0), "ended": 1.0}
    second.state.global_step = 1
    second.train()
    assert len([r for r in first.keep.log.of("t") if "alarm" in r]) == 1
    assert not second.said
    second.keep.finish("last")
    assert (list(second.keep.alarms), list(second.keep.withdrawn)) == ([], ["answers get shorter"])


def test_unwatched_nothing_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.2, 0.3, 0.5])
    words = iter([10.0, 3.0, 2.0])
    run.keep.validate = lambda: {"win_rate": 0.3, "words": next(words), "ended": 1.0}
    run.train()
    assert not run.said
