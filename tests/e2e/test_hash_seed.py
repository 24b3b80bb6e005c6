"""A run is the same bytes whatever Python's hash seed, and an answer is found again whatever named its weights."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plad.policy.fingerprint import folder_fingerprint
from tests.support.command import environment, plad_command, run_here
from tests.support.task import write_task

MEASURED = {"seconds", "train_seconds", "finished", "peak_memory", "tokens_per_s", "id"}
LOGS = {"run.lock", "run.log"}
LORA = {"r": 4}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in MEASURED}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def content(file: Path) -> object:
    """A file's bytes; of one that holds times, all else that it says, in its order."""
    if file.suffix == ".sqlite":
        return answers(file)
    if file.name in ("manifest.json", "made_from.json", "round.json"):
        return json.dumps(without_times(json.loads(file.read_text())))
    if file.name == "COMPLETE":
        return {k: v for k, v in json.loads(file.read_text()).items() if k != "made_from.json"}
    if file.name == "metrics.jsonl":
        return [without_times(json.loads(line)) for line in file.read_text().splitlines()]
    return file.read_bytes()


def answers(ledger: Path) -> list[tuple[Any, ...]]:
    query = "SELECT key, system, example_id, sample, outcome, text, token_ids, spec FROM generations ORDER BY key"
    with sqlite3.connect(ledger) as db:
        return [*db.execute(query), *db.execute("SELECT * FROM asked ORDER BY 1"), *db.execute("SELECT * FROM batches")]


def go(config: Path, hash_seed: int, *more: str) -> None:
    environ = {**environment(), "PYTHONHASHSEED": str(hash_seed)}
    subprocess.run(plad_command("run", config, *more), env=environ, capture_output=True, timeout=300, check=True)


def test_a_whole_run_is_the_same_under_another_hash_seed(tmp_path: Path) -> None:
    config = write_task(tmp_path, teacher__lora=LORA, student__lora=LORA, distill__rounds=2, sft__epochs=1)
    runs = [tmp_path / f"run{seed}" for seed in (1, 2)]
    for seed, run in enumerate(runs, 1):
        go(config, seed)
        (tmp_path / "run").rename(run)
    names = [{str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} - LOGS for run in runs]
    assert names[0] == names[1]
    assert "sft/teacher/adapter_config.json" in names[0]
    shown = {"report/index.html", "report/report.md"}  # full of times: made again from the same figures
    assert [n for n in sorted(names[0] - shown) if content(runs[0] / n) != content(runs[1] / n)] == []
    shutil.copytree(runs[0], tmp_path / "run")
    go(config, 2, "--clean", "report")
    assert [n for n in shown if content(runs[0] / n) != content(tmp_path / "run" / n)] == []


@pytest.mark.parametrize("older_first", [True, False])
def test_runs_that_name_models_by_bytes_and_by_content_share_answers(older_first: bool, tmp_path: Path) -> None:
    """A manifest that says nothing of fingerprints is of an older version, and its run goes on as it began."""
    config = write_task(tmp_path, teacher__lora=LORA, sft__epochs=1, generate__ledger=str(tmp_path / "all.sqlite"))
    places = {older: tmp_path / f"older_{older}" for older in (True, False)}
    places[True].mkdir()
    (places[True] / "manifest.json").write_text(json.dumps({"schema": 1, "id": "older", "stages": {}}))
    for older in (older_first, not older_first):
        run_here(config, f"run.dir={places[older]}", to="pair")
        if older is older_first:
            before = answers(tmp_path / "all.sqlite")
    after = answers(tmp_path / "all.sqlite")
    sampled = [row for row in after if len(row) == 8 and row[1] != "watched"]
    assert sampled == [row for row in before if len(row) == 8 and row[1] != "watched"]
    name = folder_fingerprint(places[True] / "sft/teacher")
    used = {json.loads(row[7])["weights"] for row in sampled if row[1] == "teacher"}
    assert used == {name.former if older_first else str(name)}
    pairs = [(places[older] / "pairs.parquet").read_bytes() for older in (True, False)]
    assert pairs[0] == pairs[1]


def test_a_new_run_takes_an_older_ones_stages_over(tmp_path: Path) -> None:
    config = write_task(tmp_path, sft__epochs=1)
    older = tmp_path / "older"
    older.mkdir()
    (older / "manifest.json").write_text(json.dumps({"schema": 1, "id": "older", "stages": {}}))
    run_here(config, f"run.dir={older}", to="generate")
    command = plad_command("run", config, "--to", "generate", "--reuse", older)
    said = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=True)
    for stage in ("data", "sft", "generate"):
        assert f"{stage}: taken from {older}" in said.stdout + said.stderr
