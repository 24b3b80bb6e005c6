"""A sweep through the real command: killed in the middle and continued, with nothing made twice."""

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from tests.support.command import environment, plad, plad_command
from tests.support.task import write_task

SPACE = {
    "distill.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "generate.temperature": [0.7, 1.0],
}


def rows(file: Path) -> list[dict]:
    """The whole lines of a metrics file."""
    lines = file.read_text().split("\n")[:-1] if file.is_file() else []
    return [json.loads(line) for line in lines]


def steps(trial: Path) -> list[int]:
    return [r["step"] for r in rows(trial / "metrics.jsonl") if r["stage"] == "distill" and "loss" in r]


def kill_while_distilling(task: Path, trial: Path) -> None:
    child = subprocess.Popen(
        plad_command("sweep", task), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while child.poll() is None and time.monotonic() < deadline and len(steps(trial)) < 3:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()


def answers(ledger: Path) -> dict[tuple[str, float], int]:
    """Recorded answers by system and temperature."""
    with sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True) as db:
        found: dict[tuple[str, float], int] = {}
        for system, spec in db.execute("SELECT system, spec FROM generations"):
            key = system, json.loads(spec)["temperature"]
            found[key] = found.get(key, 0) + 1
    db.close()
    return found


def test_a_sweep_killed_while_a_trial_trains_goes_on_and_makes_nothing_twice(tmp_path: Path) -> None:
    sweep = {"trials": 3, "sampler": "random", "keep": "all", "space": SPACE}
    task = write_task(tmp_path, distill__batch_size=1, distill__epochs=4, sweep=sweep)
    plad("run", task, "--to", "generate")
    folder = tmp_path / "run-sweep"
    kill_while_distilling(task, folder / "trials/1")
    begun = steps(folder / "trials/1")
    assert len(begun) >= 3
    assert not (folder / "trials/1/student").exists()

    printed = plad("sweep", task)
    assert "trial 0 of 3" not in printed
    assert "distill: resuming from step" in printed
    assert printed.count("sft: started") == 0
    assert steps(folder / "trials/1") == sorted(set(steps(folder / "trials/1"))) > begun

    manifests = [json.loads((folder / f"trials/{i}/manifest.json").read_text())["stages"] for i in range(3)]
    temperatures = {m["generate"]["inputs"]["generate"]["temperature"] for m in manifests} | {0.7}
    counted = answers(folder / "generations.sqlite")
    sampled = {"teacher": 12, "student_sft": 12, "watched": 4}
    assert counted == {(system, t): n for system, n in sampled.items() for t in temperatures}
    assert answers(tmp_path / "run/generations.sqlite").keys() == {("teacher", 0.7), ("student_sft", 0.7)}
    runs = [tmp_path / "run", *(folder / f"trials/{i}" for i in range(3))]
    for policy in ("teacher", "student"):
        assert len({os.stat(run / f"sft/{policy}/model.safetensors").st_ino for run in runs}) == 1

    assert printed.count("\n 0 ") == printed.count("\n 1 ") == printed.count("\n 2 ") == 1, "a table of the trials"
    report = (folder / "report/report.md").read_text()
    assert report.startswith("# run\\-sweep") or report.startswith("# run-sweep")
    (command,) = (line for line in report.splitlines() if line.startswith("plad run "))
    printed = plad("sweep", task, "sweep.keep=best")
    assert "started" not in printed
    assert "Best of 3 trials" in " ".join(printed.split())
    assert [p.parent.name for p in folder.glob("trials/*/student")] == [
        shlex.split(command)[-2].rpartition("/")[2].rstrip('"')
    ]
    again = plad(*shlex.split(command)[1:], "--to", "distill")
    assert again.count("done before") == 5
