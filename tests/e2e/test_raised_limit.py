"""A raised `generate.max_new_tokens`, which plad itself advises, makes nothing again that does not depend on it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from plad.answers.question import Sampling
from plad.train.validation import KeepBest
from tests.support.command import KilledError, call, copy_run, run_here
from tests.support.task import write_task

RAISED = "generate.max_new_tokens=30"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run that has its pairs."""
    config = write_task(tmp_path_factory.mktemp("raised"), sft__epochs=2, pairs__drop={"empty": False})
    run_here(config, to="generate")
    return config


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def weights(run: Path) -> bytes:
    return (run / "sft/teacher/model.safetensors").read_bytes()


def test_what_is_fine_tuned_is_kept_and_what_is_made_again_is_named(made: Path, tmp_path: Path) -> None:
    place = copy_run(made.parent / "run", tmp_path)
    run = tmp_path / "run"
    before = manifest(run)["stages"]
    code, _, err = call("run", made, place, RAISED, "--to", "generate")
    assert code == 2
    assert "stage generate was made with other settings: generate.max_new_tokens 24 -> 30" in err
    assert re.search(r"--clean generate makes generate again, which took \d+ s", err)
    assert "sft: kept; the teacher's weights were chosen by answers of at most 24 tokens" in err
    code, _, err = call("run", made, place, RAISED, "--to", "generate", "--clean", "generate")
    assert code == 0, err
    after = manifest(run)["stages"]
    assert after["sft"] == before["sft"]
    assert after["generate"]["inputs"]["generate"]["max_new_tokens"] == 30
    code, _, err = call("run", made, place, RAISED, "--to", "sft", "--clean", "sft")
    assert code == 0, err
    assert manifest(run)["stages"]["sft"]["inputs"]["teacher"]["validation"]["max_new_tokens"] == 30


def test_a_limit_that_the_user_wrote_counts(made: Path) -> None:
    code, _, err = call("run", made, "evaluate.max_new_tokens=30", "--to", "sft")
    assert code == 2
    assert "stage sft was made with other settings: evaluate.max_new_tokens 24 -> 30" in err


def test_a_teacher_that_is_ready_while_the_stage_is_not_is_kept(made: Path, tmp_path: Path) -> None:
    place = copy_run(made.parent / "run", tmp_path)
    run = tmp_path / "run"
    stages = manifest(run)
    for name in ("sft", "generate"):
        del stages["stages"][name]
    (run / "manifest.json").write_text(json.dumps(stages))
    log = (run / "metrics.jsonl").read_text()
    run_here(made, place, RAISED, to="sft")
    assert (run / "metrics.jsonl").read_text() == log  # nothing was trained
    assert manifest(run)["stages"]["sft"]["inputs"]["teacher"]["validation"]["max_new_tokens"] == 24


def test_training_that_was_begun_goes_on_with_the_limit_it_began_with(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, step_end = f"run.dir={tmp_path / 'run'}", KeepBest.on_step_end

    def killed(self: KeepBest, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 5:
            raise KilledError
        step_end(self, args, state, control, **more)

    with monkeypatch.context() as patched:
        patched.setattr(KeepBest, "on_step_end", killed)
        with pytest.raises(KilledError):
            run_here(made, place, to="sft")
    limits: list[int] = []
    monkeypatch.setattr(
        "plad.pipeline.students.validation.Sampling",
        lambda temperature, most: limits.append(most) or Sampling(temperature, most),
    )
    run = run_here(made, place, RAISED, to="sft")
    assert limits == [24]
    assert weights(run) == weights(made.parent / "run")


def test_fine_tuning_says_that_no_answer_ends(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = manifest(made.parent / "run")["stages"]["sft"]["counts"]
    for role in ("teacher", "student"):
        told = counts[role]["validated"]
        assert (told["answers"], told["max_new_tokens"]) == (4, 24)
    assert counts["teacher"]["validated"]["ended"] == 4 * counts["teacher"]["best"]["validation"]["ended"]
    run = run_here(made, f"run.dir={tmp_path / 'run'}", "generate.max_new_tokens=1", to="sft")
    counts = manifest(run)["stages"]["sft"]["counts"]
    for role in ("teacher", "student"):
        assert counts[role]["validated"] == {"answers": 4, "ended": 0, "max_new_tokens": 1}
        told = f"sft/{role}: none of 4 validation answers ends within 1 tokens: raise generate.max_new_tokens to "
        assert [r for r in caplog.records if r.levelname == "WARNING" and r.getMessage().startswith(told)]
