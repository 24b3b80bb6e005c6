"""What a plan says of this machine: seconds by measured rates, the teacher beside the student, disk, fewer rows."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from plad.config.file import load_config
from plad.data.prepare import prepare
from plad.extras.plan.hours import ModelRate, PlannedTraining, StageTime, stage_times, trainings
from plad.extras.plan.price import Line
from plad.extras.plan.rate import Timed, TooSlowError, measure
from plad.extras.plan.tokens import counter_of
from tests.support.command import call
from tests.support.task import write_task
from tests.support.tiny_models import word_model_folder

FAST, SLOW = ModelRate(0.01, 0.1, 8, train=0.5, step=2.0), ModelRate(0.02, 0.2, 8)


def line(stage: str, system: str, split: str, **changes: Any) -> Line:
    numbers = {"answers": 10, "held": 0, "prompt_tokens": 0, "completion_tokens": 50, "read_tokens": 100}
    most = {"most_prompt_tokens": 0, "most_completion_tokens": 0}
    return Line(
        **{"stage": stage, "system": system, "split": split, "place": None, "basis": "", **numbers, **most, **changes}
    )


def test_seconds_are_tokens_times_rates() -> None:
    """Training 100 x 0.5 + 3 x 2 = 56 s; answers 100 x 0.01 + 50 x 0.1 = 6 s, of the slow one 12 s."""
    lines = [
        line("generate", "student_sft", "distill"),
        line("generate", "teacher", "distill"),
        line("distill", "validation", "validation"),
        line("evaluate", "teacher", "test", place="teacher.engine"),
        line("evaluate", "student", "test", held=10, completion_tokens=0),
    ]
    work = [PlannedTraining("distill", "student", 100, 3)]
    found = list(stage_times(lines, work, {"student": FAST, "teacher": SLOW}))
    assert found == [StageTime("generate", 0, pytest.approx(18)), StageTime("distill", 56, pytest.approx(6))]
    assert found[1].total == pytest.approx(62)


def test_a_rate_that_is_not_known_makes_no_number() -> None:
    lines = [line("generate", "student_sft", "distill"), line("sft", "validation", "validation")]
    work = [PlannedTraining("sft", "teacher", 100, 3), PlannedTraining("sft", "student", 100, 3)]
    found = list(stage_times(lines, work, {"student": FAST}))
    assert found == [StageTime("sft", None, None), StageTime("generate", 0, pytest.approx(6))]
    assert found[0].total is None
    (timed_without_training,) = stage_times([], [PlannedTraining("sft", "teacher", 100, 3)], {"teacher": SLOW})
    assert timed_without_training.training is None


def test_what_is_trained_is_every_row_once_an_epoch_and_nothing_that_is_done(tmp_path: Path) -> None:
    config = load_config(write_task(tmp_path), ["evaluate.baselines=[seqkd]", "distill.epochs=2"])
    prepared = prepare(config, base=tmp_path)
    counters = {role: counter_of(config, role, tmp_path) for role in ("teacher", "student_sft")}
    found = {(t.stage, t.role): t for t in trainings(config, prepared, counters, ())}
    assert {key: t.steps for key, t in found.items()} == {
        ("sft", "teacher"): 5 * 3,
        ("sft", "student"): 5 * 3,
        ("distill", "student"): 2 * 6,
        ("baselines", "student"): 2 * 6,
    }
    counter = counters["teacher"]
    tokens = sum(counter.prompt(e) + counter.completion(e.target or "") for e in prepared.sft)
    assert found["sft", "teacher"].tokens == 5 * tokens
    assert {t.stage for t in trainings(config, prepared, counters, ["sft", "distill"])} == {"baselines"}


def test_a_plan_times_the_models_that_are_here(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    code, out, err = call("plan", path, "--limit", "8", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["prompts"] == {"sft": 4, "distill": 4, "validation": 4, "test": 6}
    here = made["here"]
    assert set(here["rates"]) == {"teacher", "student"}
    assert all(rate[name] > 0 for rate in here["rates"].values() for name in ("prompt", "answer", "train", "step"))
    assert [t["stage"] for t in here["stages"]] == ["sft", "generate", "distill", "evaluate"]
    assert all(t["training"] is not None and t["answers"] is not None for t in here["stages"])
    assert not (tmp_path / "run").exists()
    code, out, _ = call("plan", path, "--no-measure")
    assert code == 0
    assert "the teacher's rate is unknown: --no-measure" in out
    assert max(map(len, out.splitlines())) <= 80


def test_measuring_stops_when_its_time_is_over(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    config = load_config(path)
    section = config.student.model_copy(update={"model": str(tmp_path / "model")})
    rows = prepare(config, base=tmp_path).sft
    timed = Timed(section, rows, 2, None, config.sft.settings("student"))
    for times in ([1.0], [0.0, 1.0], [0.0] * 9 + [1.0]):  # before it is loaded, after, and in a pass
        clock = iter(times)
        with pytest.raises(TooSlowError):
            measure(timed, 0.5, lambda clock=clock: next(clock))
    calls = count()
    whole = measure(timed, 1e9, lambda: float(next(calls)))
    used = next(calls)
    calls = count()
    assert measure(timed, used - 20.0, lambda: float(next(calls))).train is None  # in its training
    assert whole.train is not None


def test_a_teacher_whose_logits_are_needed_stands_beside_the_student(tmp_path: Path) -> None:
    made = yaml.safe_load(write_task(tmp_path).read_text())
    made["student"] = {"model": "small", "lora": None}
    word_model_folder(tmp_path / "small", "llama", seed=1)
    made["distill"]["objective"] = {"type": "gkd"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(made))

    def memory(*more: str) -> tuple[dict[str, Any], dict[str, Any]]:
        code, out, err = call("plan", tmp_path / "config.yaml", "--no-measure", "--json", *more)
        assert code == 0, err
        found = json.loads(out)
        return next(m for m in found["memory"] if m["stage"] == "distill"), found

    beside, found = memory()
    alone, _ = memory("distill.objective={type: rank}")
    weights = sum(file.stat().st_size for file in (tmp_path / "model").glob("*.safetensors"))
    vocabulary = json.loads((tmp_path / "model/config.json").read_text())["vocab_size"]
    assert alone["teacher"] == 0
    assert beside["teacher"] == pytest.approx(weights + 4 * beside["tokens"] * vocabulary, rel=0.1)
    assert beside["total"] == alone["total"] + beside["teacher"]
    assert found["weights"]["model"] == weights
    code, out, _ = call("plan", tmp_path / "config.yaml", "--no-measure")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_a_pruned_student_is_on_disk_before_it_is_trained(tmp_path: Path) -> None:
    _, out, _ = call("plan", write_task(tmp_path), "--no-measure", "--json")
    disk = json.loads(out)["disk"]
    assert disk["sft/student_base"] == disk["sft/student"] > 0


def test_a_single_stage_takes_fewer_rows(tmp_path: Path) -> None:
    path = write_task(tmp_path, sft__epochs=0.1)
    code, _, err = call("sft", path, "--limit", "8")
    assert code == 0, err
    counts = json.loads((tmp_path / "run/manifest.json").read_text())["stages"]["data"]["counts"]
    assert (counts["sft"], counts["distill"]) == (4, 4)
    for stage in ("generate", "pair", "distill", "baselines", "evaluate"):
        assert "--limit" in call(stage, "--help")[1]
