"""Validation while training: the best weights are kept, and training ends where nothing gets better."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from plad.train.validation import KeepBest


class Run:
    """A model of one weight whose validations are given; its steps are taken by hand."""

    def __init__(self, folder: Path, rates: list[float], **options: Any) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.rows: list[dict[str, Any]] = []
        self.said: list[str] = []
        given = iter({"win_rate": rate, "words": 10.0, "ended": 1.0} for rate in rates)
        self.keep = KeepBest(
            self.model,
            lambda: next(given),
            self.rows.append,
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
    second = Run(tmp_path, [0.4, 0.9, 0, 0, 0, 0], patience=2, before=lambda: first.keep.found)
    second.state.global_step = 3
    assert second.train() == 4


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


def test_unwatched_nothing_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.2, 0.3, 0.5])
    words = iter([10.0, 3.0, 2.0])
    run.keep.validate = lambda: {"win_rate": 0.3, "words": next(words), "ended": 1.0}
    run.train()
    assert not run.said
