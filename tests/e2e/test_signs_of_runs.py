"""A run of each kind and what is said of the student that it keeps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from plad.config.models import ModelSection
from plad.policy.load import load_policy, save_policy
from plad.report.page import build_report
from plad.report.parts.run_facts import read_facts
from plad.rundir.manifest import read_manifest
from plad.train.validation import KeepBest
from tests.support.command import copy_run, run_here
from tests.support.task import write_task
from tests.support.training_runs import Emitting

ANSWER = "two words"
NEARLY_STILL = "distill.learning_rate=1e-6"
ACTIVE = "distill.objective.beta=50"  # no pair keeps such a margin
ORDERED = "distill.objective.beta=1e-6"  # the student finds every chosen text likelier from the first step on


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task whose every answer is `two words`, with a student that gives it, and one that was taught nothing."""
    folder = tmp_path_factory.mktemp("task")
    settings: dict[str, Any] = {
        "teacher": {"model": "a file", "engine": {"type": "file", "path": "answers.jsonl"}},
        "student": {"model": "taught", "lora": None},
        "sft": {"epochs": 0.1, "batch_size": 8, "learning_rate": 1e-9},
        "pairs__file": {"path": "pairs.jsonl"},
        "generate__max_new_tokens": 16,
    }
    config = write_task(folder, **settings)
    prompts: dict[str, list[str]] = {}
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        prompts[split] = [row["prompt"] for row in rows]
        answered = [{"id": r["id"], "prompt": r["prompt"], "references": [ANSWER, "both words"]} for r in rows]
        write_lines(folder / f"{split}.jsonl", answered)
    write_lines(folder / "answers.jsonl", [{"prompt": p, "text": ANSWER} for p in prompts["train"]])
    pairs = [{"prompt": p, "chosen": ANSWER, "rejected": "a margin of one nat"} for p in prompts["train"]]
    write_lines(folder / "pairs.jsonl", pairs)
    teach(folder, [p for of_split in prompts.values() for p in of_split])
    return config


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def teach(folder: Path, prompts: list[str]) -> None:
    """Train the task's tiny model until it gives the answer."""
    policy = load_policy(ModelSection(model=str(folder / "model")))
    end = policy.prompt.encode_completion(ANSWER)
    texts = [[*policy.prompt.encode_prompt(p), *end] for p in prompts]
    width = max(map(len, texts))
    ids = torch.tensor([t + [0] * (width - len(t)) for t in texts])
    places = torch.tensor([[-100] * (len(t) - len(end)) + end + [-100] * (width - len(t)) for t in texts])
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=5e-3)
    for _ in range(250):
        optimizer.zero_grad()
        policy.model(input_ids=ids, attention_mask=(ids != 0).long(), labels=places).loss.backward()
        optimizer.step()
    save_policy(policy, folder / "taught")


@pytest.fixture(scope="module")
def paired(task: Path) -> Path:
    return run_here(task, to="pair")


def signs(run: Path) -> list[str]:
    """Those of the student that was kept, without their figures."""
    return [sentence.partition(" (")[0] for sentence in read_manifest(run).stages["distill"].counts["alarms"]]


def test_a_sound_run_raises_nothing(task: Path, paired: Path, tmp_path: Path) -> None:
    run = run_here(task, copy_run(paired, tmp_path), NEARLY_STILL, ACTIVE, to="distill")
    counts = read_manifest(run).stages["distill"].counts
    assert (counts["alarms"], counts["withdrawn"]) == ([], [])
    assert counts["best"]["validation"]["words"] == 2.0


def test_a_run_without_an_active_pair_says_that_and_not_to_train_faster(
    task: Path, paired: Path, tmp_path: Path
) -> None:
    run = run_here(task, copy_run(paired, tmp_path), ORDERED, to="distill")
    (said,) = read_manifest(run).stages["distill"].counts["alarms"]
    assert said.startswith("no pair was ever active (0 % had a loss in each of ")
    assert "every weight equals its start): raise distill.objective.beta" in said
    assert f"Distilled student: {said}" in build_report(read_facts(run)).warnings
    assert (run / "student/model.safetensors").read_bytes() == (run / "sft/student/model.safetensors").read_bytes()


def test_a_student_that_started_collapsed_is_no_sound_one(task: Path, tmp_path: Path) -> None:
    untaught = ("student.model=model", NEARLY_STILL, ACTIVE)
    run = run_here(task, f"run.dir={tmp_path / 'run'}", *untaught, to="distill")
    assert "most answers are cut off" in signs(run)


DEMO = (  # validations of the demo's run: step, win rate, words, ended, log P of chosen and rejected, in order
    (0, 0.147, 25.8, 0.5, -4.354, -2.633, 0.0),
    (19, 0.206, 18.2, 0.85, -4.468, -3.529, 0.3125),
    (39, 0.118, 22.6, 0.75, -4.559, -3.803, 0.3125),
    (58, 0.221, 19.4, 0.775, -4.368, -3.684, 0.375),
)
NAMES = ("step", "win_rate", "words", "ended", "chosen_logp", "rejected_logp", "accuracy")


def validated(folder: Path, rows: Sequence[tuple[float, ...]]) -> tuple[KeepBest, list[str]]:
    """Training over these validations, ended, its best weights kept; and the warnings that were given."""
    said: list[str] = []
    left = iter([dict(zip(NAMES[1:], row[1:], strict=True)) for row in rows])
    keep = KeepBest(
        torch.nn.Linear(1, 1),
        lambda: next(left),
        Emitting(lambda _: None),
        "distill",
        evaluations=len(rows) - 1,
        folder=folder / "best",
        watched=True,
        warn=said.append,
    )
    args = TrainingArguments(output_dir=str(folder / "out"), use_cpu=True, report_to="none")
    state, control = TrainerState(max_steps=int(rows[-1][0])), TrainerControl()
    keep.on_train_begin(args, state, control)
    keep.steps = {int(row[0]) for row in rows}
    for row in rows[1:]:
        state.global_step = int(row[0])
        keep.on_step_end(args, state, control)
    keep.finish("best")
    return keep, said


def test_what_fell_on_the_way_is_withdrawn_where_the_kept_weights_are_back(tmp_path: Path) -> None:
    keep, said = validated(tmp_path, DEMO)
    assert [sentence.partition(" (")[0] for sentence in said] == ["both log-probabilities fall"]
    assert keep.alarms == {}
    assert list(keep.withdrawn) == ["both log-probabilities fall"]


def test_what_holds_of_the_kept_weights_stays(tmp_path: Path) -> None:
    """The same run, had its third validation been the best one."""
    keep, _ = validated(tmp_path, (*DEMO[:2], (39, 0.3, *DEMO[2][2:]), DEMO[3]))
    assert list(keep.alarms) == ["both log-probabilities fall"]
    assert "-4.35 -> -4.56" in keep.alarms["both log-probabilities fall"]
    assert keep.withdrawn == {}
