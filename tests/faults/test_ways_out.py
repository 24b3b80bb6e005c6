"""A file of a finished run is damaged or gone: what `plad run` notices it makes again, and every printed way out works.

A way out is followed to the letter: what it says to delete is deleted, what it says to run is run.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from plad.answers.ledger import Ledger
from tests.support.command import KilledError, call, copy_run, run_here
from tests.support.task import write_task

pytestmark = pytest.mark.usefixtures("quick_collections")


@pytest.fixture(scope="module")
def quick_collections() -> Iterator[None]:
    import gc

    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a finished run."""
    config = write_task(
        tmp_path_factory.mktemp("task"),
        distill__validation={"evaluations": 0},
        evaluate__bootstrap=50,
        evaluate__baselines=["seqkd"],
    )
    code, _, err = call("run", config)
    assert code == 0, err
    return config


def conclusions(run: Path) -> tuple[Any, Any]:
    metrics = json.loads((run / "eval/metrics.json").read_text())
    metrics.pop("comparison")  # its seconds are the machine's
    return metrics, {name: t.tolist() for name, t in load_file(run / "student/model.safetensors").items()}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Other bytes, as many as before: its size tells nothing."""
    size = file.stat().st_size
    file.write_bytes(b"\xff\x00" * (size // 2) + b"\xff" * (size % 2))


def delete(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def folder(file: Path) -> None:
    delete(file)
    file.mkdir()


def list_of_one(file: Path) -> None:
    file.write_text("[1]\n")


NOTICED = (
    (cut, "sft/student/model.safetensors"),
    (delete, "sft/teacher"),
    (cut, "sft/teacher/COMPLETE"),
    (delete, "student"),
    (cut, "student/model.safetensors"),
    (delete, "pairs.parquet"),
    (folder, "pairs.parquet"),
    (delete, "baselines/seqkd"),
    (delete, "data"),
    (cut, "eval/judgements.parquet"),
    (delete, "eval/metrics.json"),
    (delete, "report"),
    (delete, "generations.sqlite"),
)


@pytest.mark.parametrize(("damage", "name"), NOTICED)
def test_outputs_that_are_gone_or_cut_are_noticed_and_made_again(
    task: Path, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    place, run = copy_run(task.parent / "run", tmp_path), tmp_path / "run"
    damage(run / name)
    code, _, err = call("run", task, place)
    assert code == 0, err
    assert "is gone or damaged: it is made again" in err
    assert conclusions(run) == conclusions(task.parent / "run")
    assert (run / name).exists()
    code, _, err = call("run", task, place)
    assert (code, err.count("done before")) == (0, 8), err


def test_a_stage_that_is_made_again_goes_on_where_it_was_stopped(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run = copy_run(task.parent / "run", tmp_path), tmp_path / "run"
    delete(run / "student")
    with monkeypatch.context() as patched:
        patched.setattr("plad.pipeline.stages.distill.save_policy", stop_here)
        with pytest.raises(KilledError):
            run_here(task, place)
    code, _, err = call("run", task, place)
    assert code == 0, err
    assert "distill: resuming from step" in err
    assert conclusions(run) == conclusions(task.parent / "run")


def answers_of(ledger: Path) -> list[Any]:
    with Ledger(ledger) as opened:
        return opened.read(
            "SELECT key, text FROM generations WHERE system IN ('teacher', 'student_sft') ORDER BY 1", ()
        )


def test_answers_that_are_gone_are_sampled_again_also_after_a_stop(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run = copy_run(task.parent / "run", tmp_path), tmp_path / "run"
    for file in run.glob("generations.sqlite*"):
        delete(file)
    with monkeypatch.context() as patched:
        patched.setattr("plad.pipeline.engines._require_enough", stop_here)
        with pytest.raises(KilledError):
            run_here(task, place, to="generate")
    code, _, err = call("run", task, place)
    assert code == 0, err
    assert answers_of(run / "generations.sqlite") == answers_of(task.parent / "run/generations.sqlite")


def test_answers_that_are_gone_are_missed_though_another_run_lends_some(task: Path, tmp_path: Path) -> None:
    place, run = copy_run(task.parent / "run", tmp_path), tmp_path / "run"
    shutil.copytree(run, other := tmp_path / "other")
    with Ledger(other / "generations.sqlite") as opened:
        opened.write([("DELETE FROM generations WHERE rowid > 1", ())])
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["stages"]["generate"]["fingerprint"] = "made with other settings"
    (other / "manifest.json").write_text(json.dumps(manifest))
    for file in run.glob("generations.sqlite*"):
        delete(file)
    code, _, err = call("run", task, place, "--to", "generate", "--reuse", other)
    assert code == 0, err
    wanted = sum(sum(outcomes.values()) for outcomes in manifest["stages"]["generate"]["counts"].values())
    assert len(answers_of(run / "generations.sqlite")) == wanted


def test_what_depends_on_a_model_of_another_run_is_made_anew_where_that_one_differs(task: Path, tmp_path: Path) -> None:
    place, run = copy_run(task.parent / "run", tmp_path), tmp_path / "run"
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["sft"]["made"] = "on another machine"
    (run / "manifest.json").write_text(json.dumps(manifest))
    delete(run / "sft/student")
    code, _, err = call("run", task, place, "--reuse", task.parent / "run")
    assert code == 0, err
    assert "sft: taken from" in err
    assert "sft: came out otherwise than before; made again from it: generate, pair, distill" in err


def stop_here(*_: object) -> None:
    raise KilledError


SAID = (  # damage that run does not look for, and the command that comes across it
    (flip, "student/model.safetensors", ("export", "--to", "merged")),
    (flip, "student/COMPLETE", ("export", "--to", "merged")),
    (flip, "pairs.parquet", ("show", "pairs")),
    (cut, "pairs.parquet", ("status",)),
    (flip, "data/test.jsonl", ("report",)),
    (flip, "eval/metrics.json", ("compare",)),
    (flip, "eval/answers.jsonl", ("report",)),
    (flip, "eval/judgements.parquet", ("show", "judgements")),
    (folder, "eval/judgements.parquet", ("report", "--terminal")),
    (list_of_one, "metrics.jsonl", ("report",)),
    (flip, "config.resolved.json", ("report",)),
    (flip, "generations.sqlite", ("ledger",)),
    (flip, "manifest.json", ("status",)),
    (delete, "student", ("export", "--to", "merged")),
    (delete, "eval/metrics.json", ("compare",)),
    (delete, "pairs.parquet", ("show", "pairs")),
    (folder, "run.lock", ("run",)),
    (folder, "run.log", ("run",)),
)


def follow(err: str, config: Path, place: str) -> list[str]:
    """Do what an error says last; returns the command that it names, or that ran into it."""
    where = re.sub(r":\d+$", "", err.removeprefix("error: ").partition(": ")[0])
    way = err.strip().splitlines()[-1].removeprefix("  -> ")
    if found := re.search(r"delete the folder (\S+),", way):
        delete(Path(found[1]))
    elif re.search(r"delete it|remove it|move it away", way):
        delete(Path(where))
    named = re.search(r"plad (\w+) CONFIG", way)
    changes = re.findall(
        r"\S+=\S+", way.replace("NEW", str(config.parent / f"new-{len(list(config.parent.iterdir()))}"))
    )
    return [named[1] if named else "run", str(config), *(changes or [place])]


@pytest.mark.parametrize(("damage", "name", "command"), SAID)
def test_every_printed_way_out_works_when_it_is_followed(
    task: Path, tmp_path: Path, damage: Callable[[Path], None], name: str, command: tuple[str, ...]
) -> None:
    place, run = copy_run(task.parent / "run", tmp_path), tmp_path / "run"
    damage(run / name)
    first, *more = command
    asked = (first, task, place) if first == "run" else (first, run, *more)
    code, _, err = call(*asked)
    assert code == 2, err
    assert "Traceback" not in err
    way = follow(err, task, place)
    code, _, err = call(*way)
    assert code == 0, err
    if "run.dir=" in way[-2]:
        run, asked = Path(way[-2].removeprefix("run.dir=")), (first, Path(way[-2].removeprefix("run.dir=")), *more)
        assert err.count("(12 from before)") >= 2  # answers of either are sampled once
    code, _, err = call(*asked)
    assert code == 0, err
    assert conclusions(run) == conclusions(task.parent / "run")
