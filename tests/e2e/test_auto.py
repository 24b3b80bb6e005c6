"""The objective chosen on validation, through the real command."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import environment, plad_command
from tests.support.task import write_task

CANDIDATES = [
    {"type": "rank", "sft_weight": 1.0},
    {"type": "rank", "sft_epochs": 1},
    {"type": "margin"},
    {"type": "margin", "length_normalization": "sum", "anchor_weight": 1.0},  # needs one measurement more
    "sft",
]


def plad(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(plad_command(*arguments), check=False, capture_output=True, text=True, env=environment())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    objective = {"type": "auto", "candidates": CANDIDATES}
    return write_task(tmp_path_factory.mktemp("auto"), distill__objective=objective)


@pytest.fixture(scope="module")
def manifest(config: Path) -> dict[str, Any]:
    done = plad("run", config)
    assert done.returncode == 0, done.stderr
    return json.loads((config.parent / "run/manifest.json").read_text())


def test_every_candidate_is_trained_and_the_best_is_kept(manifest: dict[str, Any]) -> None:
    counts = manifest["stages"]["distill"]["counts"]
    names = [c["name"] for c in counts["candidates"]]
    assert names == [
        "rank sft_weight=1",
        "rank sft_epochs=1",
        "margin",
        "margin length_normalization=sum anchor_weight=1",
        "sft",
    ]
    rates = {c["name"]: (c["validation"].get("win_rate", 0.0), c["validation"]["rougeL"]) for c in counts["candidates"]}
    assert rates[counts["chosen"]] == max(rates.values())


def test_warming_up_is_a_training_run_of_its_own(manifest: dict[str, Any], config: Path) -> None:
    rows = [json.loads(line) for line in (config.parent / "run/metrics.jsonl").read_text().splitlines()]
    stages = {row["stage"] for row in rows}
    assert "distill/rank sft_epochs=1/sft" in stages
    assert "distill/rank sft_weight=1/sft" not in stages


def test_the_teachers_checkpoint_is_the_one_with_the_best_validation(manifest: dict[str, Any], config: Path) -> None:
    rows = [json.loads(line) for line in (config.parent / "run/metrics.jsonl").read_text().splitlines()]
    found = [r for r in rows if r["stage"] == "sft/teacher" and "validation" in r]
    assert [r["step"] for r in found] == [0, 8, 15]
    best = manifest["stages"]["sft"]["counts"]["teacher"]["best"]
    rank = lambda r: (r["validation"].get("win_rate", 0.0), r["validation"]["rougeL"])  # noqa: E731
    assert rank(best) == max(map(rank, found[1:]))
    assert "best" not in manifest["stages"]["sft"]["counts"]["student"]


def test_the_report_shows_what_the_others_reached(manifest: dict[str, Any], config: Path) -> None:
    page = (config.parent / "run/report/report.md").read_text()
    page = page.partition("## Candidates")[2].partition("\n## ")[0]
    for candidate in manifest["stages"]["distill"]["counts"]["candidates"]:
        starts = (f"| {candidate['name']} |", f"| {candidate['name']} (kept)")
        (row,) = [r for r in page.replace("\\", "").splitlines() if r.startswith(starts)]
        assert f"{100 * candidate['validation']['rougeL']:.1f}" in row


def test_candidates_that_are_trained_are_not_trained_again(config: Path, tmp_path: Path) -> None:
    """Stopped in the second candidate, the same command goes on there and ends with the same student."""
    path = write_task(tmp_path, distill__objective={"type": "auto", "candidates": CANDIDATES})
    assert plad("run", path, "--to", "pair").returncode == 0
    run = tmp_path / "run"
    stopper = subprocess.Popen(
        plad_command("run", path), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    second = "distill/rank sft_epochs=1"
    while stopper.poll() is None and second not in (run / "metrics.jsonl").read_text():
        pass
    stopper.kill()
    assert stopper.wait() != 0
    done = plad("run", path)
    assert done.returncode == 0, done.stderr
    assert "distill/rank sft_weight=1: trained before" in done.stderr + done.stdout
    straight = (config.parent / "run/student/model.safetensors").read_bytes()
    assert (run / "student/model.safetensors").read_bytes() == straight


def test_without_validation_rows_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    path = write_task(tmp_path, distill__objective={"type": "auto"}, distill__validation={"evaluations": 0})
    done = plad("validate", path)
    assert done.returncode == 2
    assert "distill.objective.type auto chooses on validation" in done.stderr + done.stdout
