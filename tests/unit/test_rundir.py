"""Run directories: created, resumed, refused; stages fingerprinted; writes whole or not at all."""

import contextlib
import json

import pytest

from plad.errors import RunDirError
from plad.pipeline.stage import NAMES, clean, finish_cleaning
from plad.rundir.atomic import atomic_dir, atomic_file, is_complete, sweep_staging, verify_dir, write_json
from plad.rundir.directory import open_run
from plad.rundir.fingerprint import fingerprint
from plad.rundir.manifest import read_manifest
from plad.text import redact


def test_a_finished_stage_is_remembered_with_its_inputs_and_counts(tmp_path):
    with open_run(tmp_path / "r") as run:
        assert not run.is_done("data", {"seed": 0})
        run.finish("data", {"seed": 0}, {"rows": 3}, 1.26)
    with open_run(tmp_path / "r") as run:
        assert run.is_done("data", {"seed": 0})
        assert run.counts("data") == {"rows": 3}
        assert run.manifest.stages["data"].seconds == 1.3
        assert run.fingerprint("data") == fingerprint({"seed": 0})


def test_changed_inputs_are_refused_with_old_and_new_value(tmp_path):
    with open_run(tmp_path / "r") as run:
        run.finish("sft", {"sft": {"epochs": 1, "lr": 0.1}, "seed": 0}, {}, 0)
        with pytest.raises(RunDirError, match=r"stage sft was made with other settings: sft.epochs 1 -> 2") as e:
            run.is_done("sft", {"sft": {"epochs": 2, "lr": 0.1}, "seed": 0})
    assert "--clean sft" in str(e.value)


def test_inputs_are_compared_as_json_writes_them(tmp_path):
    with open_run(tmp_path / "r") as run:
        run.finish("data", {"names": ("a", "b"), "path": tmp_path}, {}, 0)
        assert run.is_done("data", {"path": str(tmp_path), "names": ["a", "b"]})


MADE = ("data", "sft", "checkpoints/sft-student", "checkpoints/distill", "student", "eval", "report")


def finished_run(path):
    run = open_run(path)
    for stage in NAMES:
        run.finish(stage, {}, {}, 0)
    for name in MADE:
        (run / name).mkdir(parents=True)
    (run / "pairs.parquet").write_text("")
    (run / "generations.sqlite").write_text("kept")
    for stage in ("sft/teacher", "distill"):
        run.log.append({"stage": stage, "step": 1})
    return run


def left(run):
    found = {name for name in (*MADE, "pairs.parquet") if (run / name).exists()}
    rows = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return found, rows


def test_forgetting_a_stage_forgets_what_depends_on_it_and_deletes_what_it_made(tmp_path):
    with finished_run(tmp_path / "r") as run:
        assert clean(run, "distill") == ["distill", "baselines", "evaluate", "report"]
        assert list(run.manifest.stages) == ["data", "sft", "generate", "pair"]
        assert left(run) == ({"data", "sft", "checkpoints/sft-student", "pairs.parquet"}, ["sft/teacher"])
        assert clean(run, "sft") == ["sft", "generate", "pair"]
        assert left(run) == ({"data"}, [])
        assert (run / "generations.sqlite").read_text() == "kept"
    assert read_manifest(tmp_path / "r").stages.keys() == {"data"}


@pytest.mark.parametrize(("cleaned", "kept"), [("distill", True), ("pair", False), ("baselines", False)])
def test_the_log_of_methods_stays_as_long_as_they_do(tmp_path, cleaned, kept):
    """What is not trained again writes no rows again."""
    with finished_run(tmp_path / "r") as run:
        run.log.append({"stage": "baselines/seqkd", "step": 1})
        clean(run, cleaned)
        assert ("baselines/seqkd" in left(run)[1]) == kept


def test_a_cleaning_that_was_killed_is_finished_later(tmp_path, monkeypatch):
    with finished_run(tmp_path / "r") as run:
        monkeypatch.setattr(type(run), "drop", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            clean(run, "pair")
    monkeypatch.undo()
    with open_run(tmp_path / "r") as run:
        assert not run.is_done("distill", {})
        finish_cleaning(run)
        assert left(run)[0] == {"data", "sft", "checkpoints/sft-student"}
        assert "cleaning" not in json.loads((tmp_path / "r/manifest.json").read_text())


def test_a_folder_finished_but_not_yet_in_place_is_put_there(tmp_path):
    for name in (".student.abc.tmp", ".student.old.tmp", ".half.abc.tmp"):
        (tmp_path / name).mkdir()
    for name, text in ((".student.abc.tmp", "new"), (".student.old.tmp", "old")):
        (tmp_path / name / "weights").write_text(text)
        write_json(tmp_path / name / "COMPLETE", {})
    assert sorted(sweep_staging(tmp_path)) == [".half.abc.tmp", ".student.old.tmp"]
    assert (tmp_path / "student/weights").read_text() == "new"


def test_a_torn_line_of_metrics_spoils_no_other(tmp_path):
    with open_run(tmp_path / "r") as run:
        run.log.append({"step": 1})
        with (run / "metrics.jsonl").open("a") as f:
            f.write('{"step": 2, "lo')
        run.log.append({"step": 3})
        run.log.keep(lambda stage, step: True)
        assert (run / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.parametrize("name", ["..", ".", "../other", "/etc"])
def test_nothing_outside_the_run_is_deleted(tmp_path, name):
    (tmp_path / "other").mkdir()
    with open_run(tmp_path / "r") as run, pytest.raises(RunDirError, match="outside"):
        run.drop(name)
    assert (tmp_path / "other").is_dir()


def test_metrics_are_appended_line_by_line(tmp_path):
    with open_run(tmp_path / "r") as run:
        run.log.append({"step": 1})
        run.log.append({"step": 2})
        lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with contextlib.suppress(ZeroDivisionError), atomic_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    with atomic_dir(tmp_path / "d") as staging:
        (staging / "w").write_text("1")
    with contextlib.suppress(ZeroDivisionError), atomic_dir(tmp_path / "d") as staging:
        (staging / "w").write_text("2")
        _ = 1 / 0
    assert (tmp_path / "d/w").read_text() == "1"
    assert is_complete(tmp_path / "d")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_damage_in_a_finished_folder_is_named(tmp_path):
    with atomic_dir(tmp_path / "d") as staging:
        (staging / "w").write_text("1")
        (staging / "sub").mkdir()
        (staging / "sub/v").write_text("1")
    verify_dir(tmp_path / "d")
    (tmp_path / "d/sub/v").write_text("2")
    with pytest.raises(RunDirError, match="damaged") as e:
        verify_dir(tmp_path / "d")
    assert e.value.where == str(tmp_path / "d/sub/v")
    (tmp_path / "d/sub/v").unlink()
    with pytest.raises(RunDirError, match="missing"):
        verify_dir(tmp_path / "d")


def test_an_unfinished_folder_is_named(tmp_path):
    with pytest.raises(RunDirError, match="not written completely"):
        verify_dir(tmp_path)


def test_leftovers_of_killed_writes_are_swept(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.student.abc.tmp").mkdir()
    (tmp_path / "sub/.student.abc.tmp/w").write_text("half")
    (tmp_path / ".a.json.xyz.tmp").write_text("half")
    (tmp_path / "kept.tmp").write_text("kept")
    assert sweep_staging(tmp_path) == [".a.json.xyz.tmp", "sub/.student.abc.tmp"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept.tmp", "sub"]


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefgh12345678",
        "hf_abcdefghijklmnop",
        "Bearer abc.def.ghi",
        "https://me:pass@host/v1",
        "SK-PROJ-a1b2c3d4e5",
    ],
)
def test_secrets_are_redacted(secret):
    shown = redact(f"call {secret} failed")
    assert "[redacted]" in shown
    for part in ("abcdefgh", "abc.def", "pass", "a1b2c3"):
        assert part not in shown


def test_ordinary_text_is_left_alone():
    text = "risk-averse agents at https://host:8000/v1 ask-me; hf_hub; HF_HUB_OFFLINE=0 task-summaries/disk-benchmark"
    assert redact(text) == text
