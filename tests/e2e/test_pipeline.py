"""The whole of PLaD through the real command, with tiny models on real text."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from datasets import load_dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.command import environment, plad, plad_command
from tests.support.task import write_task

STAGES = ["data", "sft", "generate", "pair", "distill", "baselines", "evaluate", "report"]


def results(run: Path) -> tuple[dict, dict]:
    """What a run concluded: metrics and the distilled weights."""
    metrics = json.loads((run / "eval/metrics.json").read_text())
    return metrics, load_file(run / "student/model.safetensors")


def assert_same_results(a: Path, b: Path) -> None:
    (metrics_a, weights_a), (metrics_b, weights_b) = results(a), results(b)
    assert metrics_a == metrics_b
    assert weights_a.keys() == weights_b.keys()
    for name, weight in weights_a.items():
        assert weight.equal(weights_b[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task whose run is finished."""
    folder = tmp_path_factory.mktemp("finished run")
    plad("run", write_task(folder))
    return folder


def test_run_leaves_every_artifact(finished: Path) -> None:
    run = finished / "run"
    assert [s["stage"] for s in json.loads(plad("status", run, "--json"))["stages"]] == STAGES
    for name in ("config.yaml", "config.resolved.json", "run.log", "metrics.jsonl", "generations.sqlite"):
        assert (run / name).is_file(), name
    assert {p.name for p in (run / "report").iterdir()} == {"index.html", "report.md"}
    assert not list(run.rglob("checkpoint-*"))
    assert not list(run.rglob("*.tmp"))


def test_student_is_an_ordinary_hugging_face_folder(finished: Path) -> None:
    student = finished / "run/student"
    model = AutoModelForCausalLM.from_pretrained(student)
    tokenizer = AutoTokenizer.from_pretrained(student)
    assert model.config.num_hidden_layers == 2
    assert model.generate(**tokenizer("Summarize", return_tensors="pt"), max_new_tokens=2).shape[1] > 1


def test_metrics_hold_every_system_with_interval_and_n(finished: Path) -> None:
    metrics, _ = results(finished / "run")
    assert set(metrics["systems"]) == {"target", "teacher", "student_sft", "student"}
    for name in ("teacher", "student_sft", "student"):
        rate = metrics["systems"][name]["win_rate"]["reference"]
        assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
        assert rate["wins"] + rate["ties"] + rate["losses"] == rate["n"]
        assert metrics["systems"][name]["rougeL"]["n"] == 6
    assert {"value", "low", "high", "p"} <= metrics["differences"]["student - student_sft"]["rougeL"].keys()
    assert metrics["teacher_student_win_rate"]["reference"]["n"] == 12


def test_likelihoods_are_measured_before_and_after_on_the_same_texts(finished: Path) -> None:
    found = results(finished / "run")[0]["calibration"]
    assert found["writers"] == ["student_sft", "teacher"]
    assert found["texts"] + sum(found["left_out"].get(k, 0) for k in ("truncated", "empty", "same_text")) <= 24
    before, after = (found["judges"]["reference"][name] for name in ("student_sft", "student"))
    assert before["pairs"] == after["pairs"]
    assert before["kendall"]["n"] + before["no_order"] == found["prompts"]
    own = found["judges"]["reference"]["own"]
    assert own["student_sft"]["pairs"] == own["student"]["pairs"] <= before["pairs"]


def test_pairs_load_as_a_preference_data_set(finished: Path) -> None:
    found = load_dataset("parquet", data_files=str(finished / "run/pairs.parquet"), split="train")
    assert {"prompt", "chosen", "rejected"} <= set(found.column_names)
    counts = json.loads((finished / "run/manifest.json").read_text())["stages"]["pair"]["counts"]
    assert len(found) == counts["pairs"]
    dropped = sum(n for reason, n in counts.items() if reason.startswith("dropped_"))
    assert counts["candidates"] == counts["pairs"] + dropped


def test_metrics_log_holds_training_and_validation(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "run/metrics.jsonl").read_text().splitlines()]
    stages = {r["stage"] for r in rows}
    assert stages == {"sft/teacher", "sft/student", "distill"}
    validations = [r for r in rows if r["stage"] == "distill" and "validation" in r]
    assert validations[0]["step"] == 0
    for name in ("rougeL", "words", "ended", "chosen_logp", "rejected_logp"):
        assert name in validations[0]["validation"]
    assert {"loss", "active", "accuracy", "chosen_logp", "rejected_logp", "grad_norm"} <= set(
        next(r for r in rows if r["stage"] == "distill" and "loss" in r)
    )


def test_the_same_command_again_does_nothing(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (finished / "run").rglob("*.safetensors")}
    printed = plad("run", finished / "config.yaml")
    assert printed.count("done before") == len(STAGES)
    assert before == {p: p.stat().st_mtime_ns for p in (finished / "run").rglob("*.safetensors")}


def test_settings_that_shape_nothing_may_change(finished: Path) -> None:
    printed = plad("run", finished / "config.yaml", "generate.slots=2", "distill.max_tokens=500")
    assert printed.count("done before") == len(STAGES)


def test_another_run_gives_what_it_made_with_the_same_settings(finished: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", finished / "config.yaml"
    printed = plad("run", config, f"run.dir={run}", "distill.objective.beta=0.5", "--reuse", finished / "run")
    for stage in ("data", "sft", "generate", "pair"):
        assert f"{stage}: taken from" in printed
    assert "distill: started" in printed
    made = [s for s in json.loads(plad("ledger", run, "--json"))["systems"] if s["system"] == "student_sft"]
    assert made == [
        s for s in json.loads(plad("ledger", finished / "run", "--json"))["systems"] if s["system"] == "student_sft"
    ]
    other = tmp_path / "none"
    assert "not a run directory" in plad("run", config, f"run.dir={run}", "--reuse", other, code=2)
    assert not other.exists()


@pytest.mark.parametrize(
    ("change", "shown", "stage"),
    [
        ("generate.temperature=0.9", "generate.temperature 0.7 -> 0.9", "generate"),
        ("distill.objective.beta=2", "distill.objective.beta 1.0 -> 2.0", "distill"),
        ("teacher.prompt.template='Q: {prompt}'", 'template null -> "Q: {prompt}"', "sft"),
        ("run.seed=5", "seed 1 -> 5", "data"),
    ],
)
def test_a_setting_that_matters_is_refused_with_old_and_new(
    finished: Path, change: str, shown: str, stage: str
) -> None:
    printed = plad("run", finished / "config.yaml", change, code=2)
    assert shown in printed
    assert f"--clean {stage}" in printed


def test_status_show_compare_and_export(finished: Path, tmp_path: Path) -> None:
    run = finished / "run"
    assert "distill" in plad("status", run)
    for kind in ("pairs", "generations", "judgements"):
        assert len(json.loads(plad("show", run, kind, "-n", "2", "--json"))) == 2
    assert "student" in plad("compare", run, run)
    plad("export", run, "--to", "trl", "--out", tmp_path / "pairs.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert rows[0].keys() == {"prompt", "chosen", "rejected"}
    plad("export", run, "--to", "merged", "--out", tmp_path / "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.num_hidden_layers == 2
    plad("export", run, "--to", "gguf", "--out", tmp_path / "student.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="student.gguf")
    for name, weight in AutoModelForCausalLM.from_pretrained(run / "student").state_dict().items():
        assert weight.equal(read.state_dict()[name]), name


def test_stage_by_stage_equals_one_run(finished: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path)
    assert "plad sft" in plad("generate", config, code=2)
    for stage in STAGES[1:]:
        plad(stage, config)
    assert_same_results(tmp_path / "run", finished / "run")


def test_killed_at_random_moments_it_ends_like_an_undisturbed_run(finished: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path)
    random.seed(time.time_ns())
    for _ in range(5):
        child = subprocess.Popen(
            plad_command("run", config), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        log = tmp_path / "run/run.log"
        size = log.stat().st_size if log.exists() else 0
        while child.poll() is None and (log.stat().st_size if log.exists() else 0) <= size:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 6))
        child.send_signal(signal.SIGKILL)
        child.wait()
    plad("run", config)
    assert_same_results(tmp_path / "run", finished / "run")
    for file in ("config.resolved.json", "pairs.parquet"):
        assert (tmp_path / "run" / file).is_file()


def test_clean_redoes_what_depends_on_a_setting_and_keeps_recorded_answers(tmp_path: Path) -> None:
    config = write_task(tmp_path)
    plad("run", config)
    printed = plad("run", config, "--clean", "distill", "distill.objective.type=sft", "evaluate.limit=4")
    assert "cleaned: distill, baselines, evaluate, report" in printed
    assert printed.count("done before") == 4
    assert "teacher answers: 4/4 answers (4 from before)" in printed
    assert json.loads((tmp_path / "run/eval/metrics.json").read_text())["n"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "gpt_neo", "distill__objective": {"type": "margin", "scores": "live"}},
        {
            "family": "gpt2",
            "chat": True,
            "student__lora": {"r": 2},
            "distill__objective": {"type": "sft"},
        },
        {
            "teacher__sft": False,
            "generate__samples": 2,
            "generate__student_samples": 4,
            "distill__batch_size": 4,
            "distill__objective": {"type": "margin"},
        },
    ],
    ids=["gpt-neo-margin-live", "chat-gpt2-lora-seqkd", "teacher-as-it-is-several-samples-margin"],
)
def test_other_models_and_settings_run_to_the_report(tmp_path: Path, changes: dict) -> None:
    plad("run", write_task(tmp_path, **changes))
    assert "student" in results(tmp_path / "run")[0]["systems"]
