"""Training that is killed, resumed or handed damaged checkpoints."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from plad.errors import TrainingError
from plad.train.checkpoints import checkpoints, latest_checkpoint
from tests.support.training_runs import main as train_here

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.support.training_runs", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(folder: Path) -> None:
    child = start(folder)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err.decode()


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["loss"]) for r in rows if "loss" in r]


def kill_after_step(folder: Path, step: int) -> None:
    child = start(folder)
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        file = folder / "metrics.jsonl"
        if file.is_file() and file.read_text().count('"loss"') >= step:
            break
        time.sleep(0.002)
    time.sleep(random.random() * 0.03)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder)
    return folder


def test_killed_and_resumed_ends_bit_identical(undisturbed: Path, tmp_path: Path) -> None:
    random.seed(os.getpid())
    for step in (3, 9, 14):
        kill_after_step(tmp_path, step)
    finish(tmp_path)
    straight, resumed = (load_file(f / "final.safetensors") for f in (undisturbed, tmp_path))
    assert straight.keys() == resumed.keys()
    for name, weight in straight.items():
        assert weight.equal(resumed[name]), name
    assert losses(tmp_path) == losses(undisturbed)
    assert (tmp_path / "best.json").read_text() == (undisturbed / "best.json").read_text()


def test_only_finished_checkpoints_count(undisturbed: Path, tmp_path: Path) -> None:
    folder = undisturbed / "checkpoints"
    found = checkpoints(folder)
    assert [p.name for p in found] == ["checkpoint-14", "checkpoint-16"]
    half = folder / "checkpoint-99"
    half.mkdir()
    try:
        assert latest_checkpoint(folder) == found[-1]
    finally:
        half.rmdir()


def test_a_flipped_byte_is_named_and_so_is_the_way_out(tmp_path: Path) -> None:
    train_here(tmp_path)
    newest, previous = tmp_path / "checkpoints/checkpoint-16", tmp_path / "checkpoints/checkpoint-14"
    file = newest / "adapter_model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-3] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(TrainingError) as error:
        train_here(tmp_path)
    assert str(file) in str(error.value)
    assert str(previous) in str(error.value)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    train_here(tmp_path)
    newest = tmp_path / "checkpoints/checkpoint-16"
    settings = json.loads((newest / "settings.json").read_text())
    (newest / "settings.json").write_text(json.dumps({**settings, "batch_size": 5}))
    marker = json.loads((newest / "COMPLETE").read_text())
    marker.pop("settings.json")
    (newest / "COMPLETE").write_text(json.dumps(marker))
    with pytest.raises(TrainingError, match="batch_size 5 -> 4"):
        train_here(tmp_path)


def test_best_weights_of_a_run_that_never_reached_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best/COMPLETE").write_text("{}")
    (tmp_path / "best/best.json").write_text(json.dumps({"step": 1, "validation": {"win_rate": 9.0}}))
    train_here(tmp_path)
    assert json.loads((tmp_path / "best.json").read_text())["validation"]["win_rate"] <= 1.0
