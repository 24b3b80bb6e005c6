"""A task with one reference a row, as most have it: what decides is named at every step, through the real command."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import call, lines_fit, plad
from tests.support.task import write_task

CANDIDATES = [{"type": "rank", "sft_weight": 1.0}, "sft"]
CHOSEN = "ROUGE-L with the target"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    path = write_task(
        folder,
        distill__objective={"type": "auto", "candidates": CANDIDATES},
        distill__rounds=2,
        evaluate__calibration=None,
        sweep={"trials": 1, "space": {"distill.learning_rate": [1e-3, 2e-3]}},
    )
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**row, "references": row["references"][:1]}) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def printed(config: Path) -> str:
    return plad("run", config)


@pytest.fixture(scope="module")
def counts(printed: str, config: Path) -> dict[str, Any]:
    return {k: v["counts"] for k, v in json.loads((config.parent / "run/manifest.json").read_text())["stages"].items()}


def test_validate_warns_of_what_decides_and_names_a_better_judge(config: Path) -> None:
    code, said, _ = call("validate", config)
    assert code == 0
    (warning,) = [line for line in said.splitlines() if line.startswith("WARN")]
    assert "only likeness to the target decides" in warning
    assert "nearness to the target by ROUGE-L, system against system" in warning
    assert f"weights and the teacher's and the objective and the round are chosen on validation by {CHOSEN}" in warning
    assert "-> evaluate.judges: [{type: llm" in said
    assert "type: reward" in said
    assert "1 warning, marked WARN above" in said


def test_every_choice_names_its_measure_in_the_log_and_in_the_manifest(printed: str, counts: dict[str, Any]) -> None:
    assert "win rate 0.0" not in printed
    assert "nothing was measured" not in printed
    assert counts["sft"]["teacher"]["chosen_by"] == counts["distill"]["chosen_by"] == CHOSEN
    assert f"sft/teacher: the best weights are those of highest {CHOSEN}, on 4 rows" in printed
    assert f"by {CHOSEN}; validation ROUGE-L" in printed
    assert "rank: validation ROUGE-L" in printed
    assert f"kept: {counts['distill']['chosen']}, by {CHOSEN}" in printed
    assert f"kept round {counts['distill']['kept_round']}, by {CHOSEN}" in printed
    assert "round 1: validation ROUGE-L" in printed
    for candidate in counts["distill"]["candidates"]:
        assert "win_rate" not in candidate["validation"]


def test_the_systems_have_win_rates_against_each_other(config: Path, printed: str) -> None:
    metrics = json.loads((config.parent / "run/eval/metrics.json").read_text())
    for pair in ("student - student_sft", "student - teacher"):
        assert metrics["differences"][pair]["against"]["reference"]["n"] == 6
    assert metrics["systems"]["student"]["win_rate"]["reference"]["n"] == 0
    page = (config.parent / "run/report/report.md").read_text()
    assert "## Systems against each other" in page
    assert "the teacher's weights by ROUGE\\-L" in page or "the teacher's weights by ROUGE-L" in page
    assert "has no win rate against the human target" in page


@pytest.mark.parametrize("again", [False, True], ids=["run", "done before"])
def test_a_run_ends_with_the_verdict_and_commands_that_work(config: Path, printed: str, again: bool) -> None:
    said = plad("run", config) if again else printed
    assert ("report: done before" in said) == again
    ending = said[said.index("On the test set, in %") :].partition("\nreport: ")[0]
    for system in ("Human target", "Teacher", "SFT student", "Distilled student"):
        assert ending.count(f"\n {system}") == 1
    words = " ".join(ending.split())
    assert "The verdict was decided by nearness to the target by ROUGE-L, system against system." in words
    assert f"Chosen on validation: the teacher's weights by {CHOSEN}" in words
    table, _, steps = ending.partition("\nnext:\n")
    assert lines_fit(table)
    commands = [line.strip() for line in steps.splitlines() if line.startswith("  ") and line[2] != " "]
    assert str(config.parent / "run/report/index.html") in commands[0]
    asked = [shlex.split(command)[1] for command in commands[1:]]
    assert asked == ["show", "compare", "export"]
    assert commands[2].endswith("config.yaml --methods seqkd")  # it trains: `plad compare` has tests of its own
    if again:
        for command in (commands[1], commands[3]):
            code, out, err = call(*shlex.split(command)[1:])
            assert (code, bool(out)) == (0, True), err


def test_a_sweep_compares_trials_by_what_there_is(config: Path, printed: str) -> None:
    said = plad("sweep", config, "distill.objective={type: rank}", "distill.rounds=1")
    assert f"trials are compared by {CHOSEN}, of their best weights on validation" in said
    assert "Best of 1 trials: ROUGE-L" in said
    report = (config.parent / "run-sweep/report/report.md").read_text().replace("\\", "")
    assert f"Trials are compared by {CHOSEN}" in report


def test_a_sweep_that_asks_for_win_rates_is_told_that_there_are_none(config: Path) -> None:
    code, _, said = call("sweep", config, "sweep.metric=win_rate")
    assert code == 2
    assert "sweep.metric" in said
    assert "metric: rougeL" in said
