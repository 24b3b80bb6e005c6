"""`plad compare CONFIG` on a tiny task: every baseline from the same student, interrupted, continued, and added to."""

import json
from pathlib import Path
from typing import Any

import pytest

from plad.distillers.logits import stored as stored_logits
from plad.pipeline.stages import baselines as stage
from tests.support.command import KilledError, call, run_here
from tests.support.task import write_task

CACHED = {"type": "kd", "text": "teacher", "teacher_logits": "cached", "top_k": 30, "name": "kd-cached"}
METHODS: list[Any] = [
    "seqkd",
    {"type": "kd", "text": "teacher", "teacher_device": "cpu"},
    CACHED,
    "f_distill-js",
    "gkd",
    {"type": "minillm", "rollouts": 8, "ppo_epochs": 2},
]
NAMES = ["seqkd", "kd-teacher", "kd-cached", "f_distill-js", "gkd", "minillm"]


def trained(run: Path) -> dict[str, dict[str, Any]]:
    """Every training's metrics rows of steps, by stage."""
    found: dict[str, dict[str, Any]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row:
            found.setdefault(row["stage"], {})[row["step"]] = row
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """A config, its run, and what was said: killed before the third method, then continued to the end."""
    config = write_task(
        tmp_path_factory.mktemp("compare"),
        data__limit=14,
        distill__batch_size=2,
        distill__validation={"evaluations": 0},
        evaluate__limit=2,
        evaluate__bootstrap=50,
        evaluate__baselines=METHODS,
    )
    train, said = stage.train_and_keep, {}

    def killed(job: Any, *rest: Any) -> Any:
        if job.name == f"baselines/{NAMES[2]}":
            raise KilledError
        return train(job, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "train_and_keep", killed)
        with pytest.raises(KilledError):
            run_here(config)
    with pytest.MonkeyPatch.context() as patch:
        stored: list[int] = []
        store = stored_logits.store_teacher
        patch.setattr(stored_logits, "store_teacher", lambda *a, **k: (stored.append(1), store(*a, **k)))
        code, out, err = call("compare", config)
        said = {"code": str(code), "out": out, "err": err, "stored": str(len(stored))}
    return config, config.parent / "run", said


def test_a_killed_comparison_goes_on_with_the_next_method(compared: tuple[Path, Path, dict[str, str]]) -> None:
    _, run, said = compared
    assert said["code"] == "0", said["out"] + said["err"]
    again = [name for name in NAMES if f"baselines/{name}: trained before" in said["err"]]
    assert again == NAMES[:2]
    assert all((run / "baselines" / name / "model.safetensors").is_file() for name in NAMES)


def test_every_method_takes_the_same_number_of_updates(compared: tuple[Path, Path, dict[str, str]]) -> None:
    _, run, _ = compared
    steps = {name: max(rows) for name, rows in trained(run).items() if name.startswith(("distill", "baselines"))}
    assert set(steps) == {"distill", *(f"baselines/{name}" for name in NAMES)}
    assert len(set(steps.values())) == 1
    costs = json.loads((run / "eval/metrics.json").read_text())["comparison"]["costs"]
    assert {cost["updates"] for cost in costs.values()} == set(steps.values())


def test_stored_logits_are_found_while_training_and_say_what_live_ones_do(
    compared: tuple[Path, Path, dict[str, str]],
) -> None:
    """One bucket for all but 30 of some 300 tokens: close to the divergence over all of them, and never above it."""
    _, run, said = compared
    assert said["stored"] == "1"
    (folder,) = (run / "teacher_logits").iterdir()
    assert json.loads((folder / "index.json").read_text())["k"] == 30
    rows = trained(run)
    live, cached = (rows[f"baselines/{name}"][1] for name in ("kd-teacher", "kd-cached"))
    assert live["nll"] == pytest.approx(cached["nll"], rel=1e-4)
    assert 0.5 * live["divergence"] < cached["divergence"] <= live["divergence"] + 1e-6


def test_one_table_in_the_terminal_and_in_the_report(compared: tuple[Path, Path, dict[str, str]]) -> None:
    _, run, said = compared
    readers = ["SFT student", "SeqKD", "MiniLLM", "GKD", "f-distill, js", "Distilled student"]
    for text in (said["out"], (run / "report/report.md").read_text(), (run / "report/index.html").read_text()):
        assert all(name in text for name in readers)
    assert "Tokens fresh" in (run / "report/index.html").read_text()


def test_a_method_added_reuses_everything(compared: tuple[Path, Path, dict[str, str]]) -> None:
    config, run, _ = compared
    before = {name: (run / "baselines" / name / "model.safetensors").stat().st_mtime_ns for name in NAMES}
    baselines = json.dumps([*METHODS, "distillm"])
    code, out, err = call("compare", config, f"evaluate.baselines={baselines}")
    assert code == 0, out + err
    assert all(f"baselines/{name}: trained before" in err for name in NAMES)
    assert all(f"{stage}: done before" in err for stage in ("sft", "generate", "pair", "distill"))
    assert {name: (run / "baselines" / name / "model.safetensors").stat().st_mtime_ns for name in NAMES} == before
    assert "DistiLLM" in out
