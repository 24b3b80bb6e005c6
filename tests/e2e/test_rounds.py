"""Rounds of distillation through the pipeline. Where a test must decide how they go, it scripts what they came to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from plad.answers.ledger import Ledger
from plad.data.formats import read_pairs_parquet
from plad.errors import ConfigError, ProblemsError
from plad.pipeline.stages import rounds as stage
from tests.support.command import KilledError, copy_run, run_here
from tests.support.task import write_task

RISING = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}
FALLING = {0: 0.1, 1: 0.3, 2: 0.2}
FAVOURED = {"n": 9, "value": 0.8, "low": 0.6, "high": 0.9}


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run that has its pairs."""
    config = write_task(tmp_path_factory.mktemp("paired"), distill__learning_rate=1e-2)
    run_here(config, to="pair")
    return config


def script(monkeypatch: pytest.MonkeyPatch, rates: Mapping[int, float]) -> list[int]:
    """Let rounds come to these win rates, the teacher favoured throughout; students on disk after each round."""
    judged, start = stage._Loop.judged, stage._Loop.of_the_start
    on_disk: list[int] = []

    def scripted(self: Any, n: int) -> dict[str, Any]:
        found = judged(self, n) if n else start(self)
        on_disk.append(len(list((self.resources.run / "checkpoints/rounds").glob("student_round_*"))))
        return {**found, "validation": {**found["validation"], "win_rate": rates[n]}, "teacher_student": FAVOURED}

    monkeypatch.setattr(stage._Loop, "judged", scripted)
    monkeypatch.setattr(stage._Loop, "of_the_start", lambda self: scripted(self, 0))
    return on_disk


def go(config: Path, folder: Path, *overrides: str, to: str = "distill") -> Path:
    """Go on from the paired run, in a copy of it, or with what stands in `folder`."""
    folder.mkdir(exist_ok=True)
    setting = f"run.dir={folder / 'run'}" if (folder / "run").exists() else copy_run(config.parent / "run", folder)
    return run_here(config, setting, *overrides, to=to)


def counts(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())["stages"]["distill"]["counts"]


def same_students(a: Path, b: Path) -> bool:
    one, other = (load_file(run / "student/model.safetensors") for run in (a, b))
    return one.keys() == other.keys() and all(weight.equal(other[name]) for name, weight in one.items())


@pytest.fixture(scope="module")
def three(paired: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A run of three rounds that each gained, and how many students it had on disk."""
    with pytest.MonkeyPatch.context() as patch:
        on_disk = script(patch, RISING)
        return go(paired, tmp_path_factory.mktemp("three"), "distill.rounds=3"), on_disk


def test_every_round_meets_the_same_answers_of_the_teacher_with_new_ones_of_the_student(
    three: tuple[Path, list[int]],
) -> None:
    run, _ = three
    first = read_pairs_parquet(run / "pairs.parquet")
    answers = {pair.chosen for pair in first}
    for n in (2, 3):
        pairs = read_pairs_parquet(run / f"rounds/{n}/pairs.parquet")
        assert pairs
        assert {pair.rejected_source for pair in pairs} == {f"student_round_{n - 1}"}
        assert {pair.chosen for pair in pairs} <= answers
        assert [pair.rejected for pair in pairs] != [pair.rejected for pair in first]
    with Ledger(run / "generations.sqlite", readonly=True) as ledger:
        sampled = {system: sum(by_outcome.values()) for system, by_outcome in ledger.counts().items()}
    # 12 distillation prompts, and 3 validation prompts on which teacher and student meet
    assert sampled == {
        "teacher": 12 + 3,
        "student_sft": 12 + 3,
        "student_round_1": 12 + 3,
        "student_round_2": 12 + 3,
        "student_round_3": 3,
        "watched": 4 * 3,  # validation prompts, before each round
    }


def test_the_last_round_is_kept_and_no_more_than_two_students_were_on_disk(three: tuple[Path, list[int]]) -> None:
    run, on_disk = three
    found = counts(run)
    assert (found["kept_round"], found["stopped"], found["stage"]) == (3, None, "distill/round_3")
    assert [r["validation"]["win_rate"] for r in found["rounds"]] == [0.1, 0.2, 0.3, 0.4]
    assert on_disk == [0, 1, 2, 2]
    assert not (run / "checkpoints").exists()
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {s for s in stages if s.startswith("distill")} == {"distill", "distill/round_2", "distill/round_3"}


def test_a_round_that_gains_nothing_is_the_last_and_the_one_before_is_kept(
    paired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, FALLING)
    run = go(paired, tmp_path / "rounds", "distill.rounds=5")
    found = counts(run)
    assert (len(found["rounds"]), found["kept_round"]) == (3, 1)
    assert found["stopped"] == "the validation win rate no longer rises"
    assert same_students(run, go(paired, tmp_path / "single"))


@pytest.mark.parametrize("place", ["_train", "_teacher_against", "drop"])
def test_a_run_killed_between_rounds_goes_on_and_ends_the_same(
    three: tuple[Path, list[int]], paired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Killed at the second round's `place`: nothing of the first is made again."""
    script(monkeypatch, RISING)
    known = getattr(stage._Loop, place)
    made: list[int] = []

    def die(self: Any, n: int, *more: Any) -> Any:
        if n == (1 if place == "drop" else 2):
            raise KilledError
        return known(self, n, *more)

    with monkeypatch.context() as patch:
        patch.setattr(stage._Loop, place, die)
        with pytest.raises(KilledError):
            go(paired, tmp_path, "distill.rounds=3")
    train = stage._Loop._train
    monkeypatch.setattr(stage._Loop, "_train", lambda self, n, *more: (made.append(n), train(self, n, *more))[1])
    run = go(paired, tmp_path, "distill.rounds=3")
    assert made == ([3] if place in ("_teacher_against", "drop") else [2, 3])
    assert same_students(run, three[0])
    assert counts(run)["rounds"] == counts(three[0])["rounds"]


def test_a_student_that_was_saved_but_not_yet_recorded_is_not_trained_again(
    three: tuple[Path, list[int]], paired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, RISING)
    write = stage.write_json

    def die(path: Path, value: Any) -> None:
        if path.parent.name == "2" and "training" in value:
            raise KilledError
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_json", die)
        with pytest.raises(KilledError):
            go(paired, tmp_path, "distill.rounds=2")
    trained: list[str] = []
    distilled = stage.distilled
    monkeypatch.setattr(stage, "distilled", lambda job, start: (trained.append(job.name), distilled(job, start))[1])
    go(paired, tmp_path, "distill.rounds=3")  # more rounds continue those that were made
    assert trained == ["distill/round_3"]
    assert same_students(tmp_path / "run", three[0])


def test_pairs_of_a_file_stand_in_every_round(tmp_path: Path) -> None:
    own = {"prompt": "Say it.", "chosen": "so", "rejected": "no"}
    (tmp_path / "more.jsonl").write_text(json.dumps(own) + "\n")
    config = write_task(tmp_path, pairs__file={"path": "more.jsonl"}, distill__rounds=2)
    with pytest.MonkeyPatch.context() as patch:
        script(patch, RISING)
        run = run_here(config, to="distill")
    for file in ("pairs.parquet", "rounds/2/pairs.parquet"):
        assert [p.chosen for p in read_pairs_parquet(run / file) if p.chosen_source == "file"] == ["so"]
    assert counts(run)["kept_round"] == 2


def test_two_rounds_as_they_go_stand_in_the_report(paired: Path, tmp_path: Path) -> None:
    run = go(paired, tmp_path, "distill.rounds=2", to="report")
    found = counts(run)
    rates = [r["teacher_student"] for r in found["rounds"]]
    assert all(r["n"] == 3 and 0 <= r["low"] <= r["value"] <= r["high"] <= 1 for r in rates)
    text = (run / "report/report.md").read_text()
    assert "## Rounds" in text
    assert "Teacher and student met on validation prompts" in text
    page = (run / "report/index.html").read_text()
    assert "Win rates by round" in page
    assert "While distilling: ends on validation" in page


def test_the_chosen_candidate_goes_on_alone(paired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, RISING)
    candidates = "[{type: rank, sft_epochs: 1}, sft]"
    run = go(paired, tmp_path, "distill.rounds=2", f"distill.objective={{type: auto, candidates: {candidates}}}")
    found = counts(run)
    assert [c["name"] for c in found["candidates"]] == ["rank", "sft"]
    stages = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert {s for s in stages if s.startswith("distill")} == {
        "distill/rank",
        "distill/rank/sft",
        "distill/sft",
        "distill/round_2",
    }


def test_a_file_of_answers_without_validation_rows_meets_the_student_on_its_own_prompts(tmp_path: Path) -> None:
    from tests.support.task import write_answers

    tmp_path.mkdir(exist_ok=True)
    write_answers(tmp_path / "answers.jsonl", ("train",))
    teacher = {"model": "somebody", "sft": False, "engine": {"type": "file", "path": "answers.jsonl"}}
    config = write_task(tmp_path, teacher=teacher, distill__rounds=2)
    run = run_here(config, to="distill")
    assert {r["met_on"] for r in counts(run)["rounds"]} == {"distill"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("distill.validation={evaluations: 0}", "distill.rounds 2 chooses on validation"),
        ("data.validation=null", "distill.rounds 2 chooses on validation"),
        ("evaluate.judges=[]", "needs a judge of teacher and student"),
    ],
)
def test_rounds_without_something_to_choose_by_are_refused(paired: Path, setting: str, said: str) -> None:
    with pytest.raises((ConfigError, ProblemsError), match=said):
        run_here(paired, "distill.rounds=2", setting, to="distill")
