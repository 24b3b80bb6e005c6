"""Every objective through the real command, from the same pairs."""

import json
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from plad.data.formats import read_pairs_parquet
from plad.pipeline.resources import Resources
from tests.support.command import call
from tests.support.task import write_task


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a task whose pairs are made."""
    config = write_task(
        tmp_path_factory.mktemp("pairs"),
        generate__samples=2,
        sft__epochs=2,
        distill__validation={"evaluations": 0},
        evaluate__limit=2,
    )
    assert call("run", config, "--to", "pair")[0] == 0
    return config


@pytest.fixture
def task(paired: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(paired.parent, tmp_path / "task")
    return tmp_path / "task/config.yaml"


def distil(config: Path, *settings: str, code: int = 0) -> str:
    """Run to the distilled student; returns what was said."""
    run = f"run.dir={config.parent / 'run'}"
    found, out, err = call("run", config, "--clean", "distill", "--to", "distill", run, *settings)
    assert found == code, out + err
    return out + err


def rows(config: Path) -> list[dict]:
    """The metrics of the last training."""
    lines = (config.parent / "run/metrics.jsonl").read_text().splitlines()
    return [row for line in lines if (row := json.loads(line))["stage"] == "distill"]


def values(config: Path) -> dict[str, dict]:
    return {p.id: dict(p.values) for p in read_pairs_parquet(config.parent / "run/pairs.parquet")}


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        (["distill.objective.type=slic", "distill.objective.sft_weight=0.5"], "margin"),
        (["distill.objective.type=rrhf"], "accuracy"),
        (["distill.objective.type=simpo", "distill.objective.anchor_weight=0.5"], "anchor"),
        (["distill.objective.type=lipo"], "lambda_weight"),
        (["distill.objective.type=margin", "distill.objective.scores=live"], "required_margin"),
        (["distill.objective.type=rank", "distill.objective.length_normalization=sum"], "active"),
    ],
    ids=lambda x: x[0].rpartition("=")[2] if isinstance(x, list) else None,
)
def test_an_objective_trains_a_student(task: Path, settings: list[str], metric: str) -> None:
    distil(task, *settings)
    steps = rows(task)
    assert len(steps) > 2
    assert all(metric in row for row in steps)
    assert (task.parent / "run/student/model.safetensors").is_file()


def test_frozen_scores_and_reference_log_probabilities_are_measured_once_and_kept(task: Path) -> None:
    before = values(task)
    assert set().union(*before.values()) == set()
    assert "measuring" in distil(task, "distill.objective.type=margin")
    scored = values(task)
    assert set().union(*scored.values()) == {"similarity"}
    assert {"chosen_similarity", "rejected_similarity"} <= set(pq.read_schema(task.parent / "run/pairs.parquet").names)
    again = distil(task, "distill.objective.type=margin", "distill.objective.beta=2")
    assert "similarity: measured before" in again
    assert "measuring" not in again
    both = distil(task, "distill.objective.type=margin", "distill.objective.anchor_weight=0.1")
    assert "measuring" in both
    kept = values(task)
    assert all(of_pair["similarity"] == scored[id]["similarity"] for id, of_pair in kept.items())
    assert "reference_logp: measured before" in distil(task, "distill.objective.type=dpo")
    assert rows(task)[0]["margin_gained"] == pytest.approx(0, abs=1e-5), "before the first step nothing has moved"
    other = distil(task, "distill.objective.type=margin", "distill.objective.spans=[1]")
    assert "measuring" in other
    assert values(task) != kept


def test_what_is_measured_is_what_is_trained_on_also_after_a_warm_up_and_without_ends(task: Path) -> None:
    distil(task, "distill.objective={type: dpo, rejected_end: false, sft_epochs: 1}", "distill.learning_rate=1e-2")
    assert rows(task)[0]["margin_gained"] == pytest.approx(0, abs=1e-5), "before the first step nothing has moved"


def test_without_targets_the_reference_is_another_answer_of_the_teacher(task: Path) -> None:
    said = distil(task, "distill.objective.type=margin", "distill.objective.reference=teacher")
    counts = json.loads((task.parent / "run/manifest.json").read_text())["stages"]["distill"]["counts"]
    assert counts["pairs_without_reference"] > 0
    prompts = {id.rpartition("#")[0] for id in values(task)}
    assert counts["prompts"] < len(prompts)
    assert counts["steps"] == math.ceil(len(prompts) / 2), "as many updates as a method that can use every prompt"
    assert f"{counts['pairs_without_reference']} of {len(values(task))} pairs are left out" in said


def test_one_answer_a_prompt_cannot_be_its_own_reference(tmp_path: Path) -> None:
    config = write_task(tmp_path / "task", distill__objective={"type": "margin", "reference": "teacher"})
    code, out, err = call("validate", config)
    assert code == 2
    assert "set generate.samples to 2 or more" in out + err


def test_prompts_without_any_reference_say_the_way_out(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resources, "examples", lambda *_: [])
    monkeypatch.setattr("plad.pipeline.students.measure.recorded_on_distill", lambda *_: {})
    assert "generate.samples: 2" in distil(task, "distill.objective.type=margin", code=2)


def test_one_command_ablates_length_normalisation(task: Path) -> None:
    """The same pairs, the same seed: the first loss is that of the same texts, in another unit."""
    run = task.parent / "run"
    code, out, err = call(
        "sweep",
        task,
        f"run.dir={run}",
        "distill.validation.evaluations=1",
        "sweep.sampler=grid",
        "sweep.keep=all",
        "sweep.space={distill.objective.length_normalization: [sum, mean]}",
    )
    assert code == 0, out + err
    first = {}
    for trial in (run.with_name("run-sweep") / "trials").iterdir():
        objective = json.loads((trial / "config.resolved.json").read_text())["distill"]["objective"]
        steps = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
        first[objective["length_normalization"]] = next(s for s in steps if s["stage"] == "distill" and "loss" in s)
    assert first["sum"]["chosen_logp"] == first["mean"]["chosen_logp"]
    assert first["sum"]["loss"] != first["mean"]["loss"]
