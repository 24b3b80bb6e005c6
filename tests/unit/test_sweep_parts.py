"""A sweep without training: its space, its study, what trials take over from each other, and its report."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plad.config.extras import SweepSection
from plad.errors import ConfigError, MissingExtraError, RunDirError
from plad.extras.sweep import study as studies
from plad.extras.sweep.report import sweep_view, write_report
from plad.extras.sweep.run import _check_settings
from plad.extras.sweep.space import Knob, Space, open_space
from plad.pipeline.reuse import adopt, adopt_fine_tuned
from plad.pipeline.stage import STAGES
from plad.rundir.atomic import atomic_dir, write_json, write_text
from plad.rundir.directory import RunDir, open_run

BY_NAME = {stage.name: stage for stage in STAGES}

BASE = """\
run: {dir: runs/x}
data: {train: a.jsonl, test: b.jsonl}
teacher: {model: big}
student: {model: small}
distill: {objective: {type: rank, beta: 0.5}}
"""


def space(tmp_path: Path, values: dict[str, Any], **settings: Any) -> Space:
    file = tmp_path / "c.yaml"
    file.write_text(BASE + "sweep: " + json.dumps({"space": values, **settings}) + "\n", encoding="utf-8")
    return open_space(file, ["run.seed=3"])


OBJECTIVES = [{"type": "rank", "beta": 0.1}, {"type": "sft"}]


def first(key: str, knob: Knob) -> Any:
    if knob.range is None:
        return knob.choices[0]
    return int(knob.range.low) if knob.kind == "int" else knob.range.low


# -- the space ----------------------------------------------------------------------------------------


def test_a_settings_type_decides_between_whole_numbers_and_others(tmp_path: Path) -> None:
    asked: dict[str, str] = {}

    def note(key: str, knob: Knob) -> Any:
        asked[key] = knob.kind
        return first(key, knob)

    spread = {"low": 1, "high": 4}
    keys = ("distill.batch_size", "distill.objective.beta", "student.lora.r", "generate.student_samples")
    space(tmp_path, {**dict.fromkeys(keys, spread), "distill.epochs": [1, 2]}).suggest(note)
    assert asked == {
        "distill.epochs": "choice",
        "distill.batch_size": "int",
        "generate.student_samples": "int",
        "distill.objective.beta": "float",
        "student.lora.r": "int",
    }


@pytest.mark.parametrize(("objective", "tried"), [(0, True), (1, False)])
def test_a_setting_is_tried_where_it_exists(tmp_path: Path, objective: int, tried: bool) -> None:
    made = space(tmp_path, {"distill.objective.beta": [0.1, 0.9], "distill.objective": OBJECTIVES})
    overrides = made.suggest(lambda key, knob: knob.choices[objective if key == "distill.objective" else 1])
    assert overrides[0] == f"distill.objective={json.dumps(OBJECTIVES[objective])}"
    assert overrides[1:] == (["distill.objective.beta=0.9"] if tried else [])
    assert made.load(overrides).distill.objective.type == OBJECTIVES[objective]["type"]


def test_a_grid_has_every_combination_that_can_be(tmp_path: Path) -> None:
    made = space(
        tmp_path, {"distill.objective": OBJECTIVES, "distill.objective.beta": [0.1, 0.9], "sft.epochs": [1, 2]}
    )
    grid = list(made.grid())
    assert len(grid) == len({json.dumps(g, sort_keys=True) for g in grid}) == 2 * (2 + 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"distill.learning_rat": [1]}, "sweep.space.distill.learning_rat: no such setting"),
        ({"distill.lora.r": [8]}, "sweep.space.distill.lora.r: no such setting"),
        ({"distill.batch_size": [4, 0]}, "sweep.space.distill.batch_size: 0: must be above 0; got 0"),
        ({"distill.batch_size": {"low": 1.5, "high": 4}}, "1.5: expected a whole number"),
        ({"distill.batch_size": {"low": 1, "high": 4, "step": 0.5}}, "step must be a whole number"),
        ({"teacher.lora": [None, {"rank": 2}]}, 'sweep.space.teacher.lora: {"rank": 2}: unknown key'),
        ({"distill.objective.beta": [-1], "distill.objective": OBJECTIVES}, "-1: must be at least 0"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_before_anything_runs(tmp_path: Path, values: dict, said: str) -> None:
    (problem,) = space(tmp_path, values).check()
    assert said in str(problem)


def test_a_right_space_has_no_problems(tmp_path: Path) -> None:
    values = {
        "distill.objective": OBJECTIVES,
        "distill.objective.beta": {"low": 0, "high": 1},
        "student.lora": [None, {"r": 4}],
        "distill.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "student.dtype": ["auto", "bfloat16"],
    }
    assert space(tmp_path, values).check() == []


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"space": {}}, "at least 1 item"),
        ({"space": {"run.dir": ["x"]}}, "run.dir can't be tried"),
        ({"space": {"run": [{"dir": "x"}]}}, "run can't be tried"),
        ({"space": {"evaluate.temperature": [1]}}, "compared by what evaluate says"),
        ({"space": {"sft.epochs": []}}, "has no choices"),
        ({"space": {"sft.epochs": {"low": 2, "high": 1}}}, "low 2 must be below high 1"),
        ({"space": {"sft.epochs": {"low": 0, "high": 1, "log": True}}}, "log needs low above 0"),
        ({"space": {"sft.epochs": {"low": 0, "high": 1}}, "sampler": "grid"}, "needs a list of choices"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(section: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SweepSection.model_validate(section)


def test_a_config_without_a_sweep_section_says_how_to_write_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(BASE)
    with pytest.raises(ConfigError, match="no sweep section"):
        open_space(tmp_path / "c.yaml", [])


# -- the study ----------------------------------------------------------------------------------------

MIXED = {
    "distill.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
    "distill.batch_size": {"low": 1, "high": 64},
    "distill.objective": OBJECTIVES,
}


def value(overrides: list[str]) -> float:
    """A made-up figure: best at a rate of 1e-3."""
    settings = dict(o.split("=", 1) for o in overrides)
    return 1.0 / (1.0 + abs(float(settings["distill.learning_rate"]) - 1e-3))


def search(made: Space, file: Path, stop_before: int | None = None, after_asking: bool = False) -> Any:
    """Run a study's trials on `value`; stopped as a killed process stops, before a trial's figure is told."""
    study = studies.open_study(file, made)
    while (trial := studies.next_trial(study, made.section, seed=5)) is not None:
        if trial.number == stop_before and not after_asking:
            break
        overrides = made.suggest(studies.suggestion(trial))
        trial.set_user_attr("overrides", overrides)
        if trial.number == stop_before:
            break
        trial.set_user_attr("figures", {"rougeL": value(overrides), "n": 40, "seconds": 61.0})
        study.tell(trial, value(overrides))
    return study


def trials(study: Any) -> list[tuple[int, Any, float]]:
    return [(t.number, dict(t.settings), t.value) for t in studies.results(study)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_stopped_search_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, sampler: str) -> None:
    made = space(tmp_path, MIXED, sampler=sampler, trials=14, metric="rougeL")
    straight = search(made, tmp_path / "straight.sqlite")
    search(made, tmp_path / "stopped.sqlite", stop_before=3)
    search(made, tmp_path / "stopped.sqlite", stop_before=12, after_asking=True)
    stopped = search(made, tmp_path / "stopped.sqlite")
    assert trials(stopped) == trials(straight)
    assert len(trials(straight)) == 14
    assert len({json.dumps(t[1]) for t in trials(straight)}) > 10, "trials draw from numbers of their own"


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    search(space(tmp_path, MIXED, trials=3), tmp_path / "study.sqlite")
    assert len(trials(search(space(tmp_path, MIXED, trials=5), tmp_path / "study.sqlite"))) == 5


def test_a_grid_is_searched_once(tmp_path: Path) -> None:
    values = {"distill.learning_rate": [1e-4, 1e-3], "distill.objective": OBJECTIVES}
    made = space(tmp_path, values, sampler="grid")
    study = search(made, tmp_path / "study.sqlite", stop_before=1, after_asking=True)
    study = search(made, tmp_path / "study.sqlite")
    assert len({json.dumps(t[1]) for t in trials(study)}) == 4 == len(trials(study))
    assert studies.wanted_trials(study, made.section) == 4


def test_a_trial_with_the_settings_of_a_finished_one_is_found(tmp_path: Path) -> None:
    study = search(space(tmp_path, MIXED, trials=2), tmp_path / "study.sqlite")
    overrides = study.trials[1].user_attrs["overrides"]
    assert studies.twin(study, overrides).number == 1
    assert studies.twin(study, overrides[:1]) is None


def test_the_first_of_equal_trials_is_the_best(tmp_path: Path) -> None:
    study = studies.open_study(tmp_path / "study.sqlite", space(tmp_path, MIXED))
    assert studies.best(study) is None
    for v in (0.1, 0.7, 0.7):
        study.tell(study.ask(), v)
    assert studies.best(study).number == 1


def test_a_damaged_study_and_a_missing_optuna_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.sqlite").write_text("not a database at all" * 100)
    with pytest.raises(RunDirError, match="can't be read"):
        studies.open_study(tmp_path / "study.sqlite", space(tmp_path, MIXED))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match="needs the package optuna"):
        importlib.reload(studies)


def test_other_settings_in_the_same_folder_are_refused_with_old_and_new(tmp_path: Path) -> None:
    _check_settings(tmp_path, {"pair": {"share": 0.5}})
    _check_settings(tmp_path, {"pair": {"share": 0.5}})
    with pytest.raises(RunDirError, match=r"pair\.share 0\.5 -> 0\.7"):
        _check_settings(tmp_path, {"pair": {"share": 0.7}})


# -- what trials take over ----------------------------------------------------------------------------


def finished_run(path: Path, stage: str, inputs: dict) -> Path:
    with open_run(path) as run:
        write_text(run / "pairs.parquet", "pairs")
        write_text(run / "data/sft.jsonl", "rows")
        for role in ("teacher", "student"):
            with atomic_dir(run / f"sft/{role}") as staging:
                write_json(staging / "made_from.json", {"inputs": f"{role} of {path.name}", "counts": {}})
            run.log.append({"stage": f"sft/{role}", "step": 1, "loss": 2.0})
        run.log.append({"stage": "distill", "step": 1, "loss": 1.0})
        run.finish(stage, inputs, {"pairs": 7}, 3.0)
    return path


@pytest.fixture
def new(tmp_path: Path) -> Iterator[RunDir]:
    with open_run(tmp_path / "new") as run:
        yield run


def test_a_stage_is_taken_over_from_the_run_that_made_it_with_the_same_inputs(tmp_path: Path, new: RunDir) -> None:
    donors = [
        tmp_path / "none",
        finished_run(tmp_path / "a", "pair", {"x": 1}),
        finished_run(tmp_path / "b", "pair", {"x": 2}),
    ]
    assert adopt(new, BY_NAME["pair"], {"x": 3}, donors) is None
    assert not (new / "pairs.parquet").exists()
    assert adopt(new, BY_NAME["pair"], {"x": 2}, donors) == donors[2]
    assert os.stat(new / "pairs.parquet").st_ino == os.stat(donors[2] / "pairs.parquet").st_ino
    assert new.is_done("pair", {"x": 2})
    assert new.counts("pair") == {"pairs": 7}
    write_text(new / "pairs.parquet", "changed")
    assert (donors[2] / "pairs.parquet").read_text() == "pairs"


def test_a_stage_whose_files_are_gone_is_not_taken_over(tmp_path: Path, new: RunDir) -> None:
    donor = finished_run(tmp_path / "a", "pair", {"x": 1})
    (donor / "pairs.parquet").unlink()
    assert adopt(new, BY_NAME["pair"], {"x": 1}, [donor]) is None


def test_fine_tuning_brings_its_curves_and_each_policy_may_come_alone(tmp_path: Path, new: RunDir) -> None:
    donor = finished_run(tmp_path / "a", "sft", {"x": 1})
    for _ in range(2):  # once more, as after a kill
        assert adopt_fine_tuned(new, "student", "another", [donor]) is None
        adopt_fine_tuned(new, "teacher", "teacher of a", [donor])
    assert (new / "sft/teacher/COMPLETE").is_file()
    assert not (new / "sft/student").exists()
    assert (new / "metrics.jsonl").read_text() == '{"stage": "sft/teacher", "step": 1, "loss": 2.0}\n'
    assert adopt(new, BY_NAME["sft"], {"x": 1}, [donor]) == donor
    assert (new / "sft/student/COMPLETE").is_file()
    assert len((new / "metrics.jsonl").read_text().splitlines()) == 2


def test_without_links_files_are_copied(tmp_path: Path, new: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    donor = finished_run(tmp_path / "a", "pair", {"x": 1})
    monkeypatch.setattr(os, "link", refuse)
    assert adopt(new, BY_NAME["pair"], {"x": 1}, [donor]) == donor
    assert (new / "pairs.parquet").read_text() == "pairs"


# -- what a sweep says --------------------------------------------------------------------------------


def test_the_report_names_the_best_its_command_and_every_trial(tmp_path: Path) -> None:
    made = space(tmp_path, MIXED, trials=6, metric="rougeL")
    study = search(made, tmp_path / "study.sqlite", stop_before=4, after_asking=True)
    failed = study.ask()
    failed.set_user_attr("error", "<b>diverged</b>")
    study.tell(failed, state=type(study.trials[0].state).FAIL)
    said = write_report(tmp_path / "sweep", study, made, lambda number: [f"run.dir=trials/{number}"])
    best = max(study.trials[:4], key=lambda t: t.value)
    assert said.headline.startswith("Best of 4 trials: ROUGE-L 99.")
    assert said.best == str(best.number) == said.trials.rows[0][0].text
    assert said.command is not None
    assert said.command.endswith(f"run.dir=trials/{best.number}")
    assert " run.seed=3 distill.learning_rate=" in said.command
    assert [row[-1].text for row in said.trials.rows[4:]] == ["unfinished", "<b>diverged</b>"]
    page = (tmp_path / "sweep/report/index.html").read_text()
    assert "&lt;b&gt;diverged" in page
    assert "<b>diverged" not in page
    assert page.count("<figure>") == 1 + len(MIXED)
    text = (tmp_path / "sweep/report/report.md").read_text()
    assert "of 40 rows flatters its trial" in text
    assert text.count("\n| ") >= 6
    assert len(list(sweep_view(said))) == 4


def test_a_report_before_the_first_trial_is_finished(tmp_path: Path) -> None:
    made = space(tmp_path, MIXED)
    said = write_report(tmp_path / "sweep", studies.open_study(tmp_path / "study.sqlite", made), made, lambda _: [])
    assert (said.headline, said.command) == ("No trial is finished yet.", None)
    assert said.notes == ("20 trials are still to come; the same command continues.",)


def test_the_recipe_of_the_papers_search_has_a_right_space() -> None:
    recipe = open_space(Path(__file__).parents[2] / "recipes/search.yaml", [])
    assert recipe.check() == []
    assert len(list(recipe.grid())) == 648
    for parameter in ("batch_size", "learning_rate", "lora.r", "beta", "temperature"):
        assert any(key.endswith(parameter) for key in recipe.section.space)
