"""Models that can't be saved for want of room, and places that vanish while a run goes on."""

import errno
import os
import resource
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from plad.answers.ledger import Ledger
from plad.answers.question import Question
from plad.answers.reply import Reply
from plad.errors import RunDirError
from plad.records import Example, Outcome
from plad.rundir import writing
from plad.rundir.atomic import atomic_dir, is_complete, write_json, write_text
from plad.rundir.directory import open_run
from plad.rundir.writing import write_error
from tests.support.command import call, call_after
from tests.support.task import write_task

CUT = 100_000  # bytes a file: less than the tiny model's weights, more than all that comes before


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (CUT, CUT))


def call_limited(*args: object) -> tuple[int, str, str]:
    """`call` in a process whose files may not grow."""
    return call_after(_limited, *args)


def test_a_limit_on_file_size_while_a_model_is_saved_is_one_sentence_and_costs_nothing(tmp_path: Path) -> None:
    config = write_task(tmp_path, distill__validation={"evaluations": 0}, sft__checkpoint_steps=1000)
    size = (tmp_path / "model/model.safetensors").stat().st_size
    assert size > CUT
    code, out, err = call_limited("run", config, "--to", "sft")
    assert code == 2, err
    assert "can't write: File too large; " in err
    assert "MiB are free there" in err
    assert "make room, or lift the limit on file size or the quota; then run the same command again" in err
    assert "Traceback" not in out + err
    assert "unexpected" not in err
    run = tmp_path / "run"
    assert not list(run.rglob("*.tmp"))
    assert not [p for p in (run / "sft").glob("*") if not is_complete(p)]
    code, _, err = call("run", config, "--to", "sft")
    assert code == 0, err


class OddError(Exception):
    """As safetensors puts it."""


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("raised", [lambda n: OSError(n, "x"), lambda n: OddError(f"I/O error: x (os error {n})")])
def test_no_room_is_one_sentence_whoever_says_it(
    tmp_path: Path, number: int, raised: Callable[[int], Exception]
) -> None:
    with pytest.raises(RunDirError) as caught, atomic_dir(tmp_path / "model"):
        raise raised(number)
    assert f"can't write: {os.strerror(number)}; " in str(caught.value)
    assert "lift the limit on file size or the quota" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_room_in_the_words_of_torch(tmp_path: Path) -> None:
    error = write_error(RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), tmp_path)
    assert "only a part could be written" in str(error)


def test_without_inodes_the_room_left_is_no_comfort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = os.statvfs(tmp_path)
    names = [name for name in dir(left) if name.startswith("f_")]
    none = type("Left", (), {**{name: getattr(left, name) for name in names}, "f_favail": 0, "f_files": 9})
    monkeypatch.setattr(writing.os, "statvfs", lambda _: none)
    error = write_error(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x/y")), tmp_path / "x/y")
    assert "MiB are free there, but no inode for another file" in str(error)


def test_the_room_is_that_of_the_place_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to an open file names no file in its error: the place is the run's, not that of the shell."""
    asked: list[str] = []
    real = os.statvfs
    monkeypatch.setattr(writing.os, "statvfs", lambda path: asked.append(str(path)) or real(path))
    with pytest.raises(RunDirError), atomic_dir(tmp_path / "there/model"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert asked == [str(tmp_path / "there")]


def test_the_users_umask_holds(tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        write_json(tmp_path / "a/file.json", {})
        with atomic_dir(tmp_path / "a/model") as staging:
            write_text(staging / "weights", "w")
            (staging / "weights").chmod(0o644)
        with open_run(tmp_path / "run"):
            pass
    finally:
        os.umask(former)
    made = [p for p in tmp_path.rglob("*") if p.name != "a"]
    assert {stat.S_IMODE(p.stat().st_mode) for p in made} == {0o600, 0o700}


def test_a_run_whose_lock_is_deleted_is_still_in_use(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        (run / "run.lock").unlink()
        with pytest.raises(RunDirError, match="in use by"):
            open_run(tmp_path / "run")
        run.save()
    with open_run(tmp_path / "run"):
        pass


def test_a_run_directory_that_is_deleted_is_not_made_anew(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        run.log.append({"stage": "sft", "step": 1})
        shutil.rmtree(run.path)
        with pytest.raises(RunDirError, match="deleted or moved away while the run went on"):
            run.save()
        with pytest.raises(RunDirError, match="its folder is no longer there"):
            run.log.append({"stage": "sft", "step": 2})
        assert not (tmp_path / "run").exists()


def test_answers_are_not_recorded_in_a_ledger_that_is_gone(tmp_path: Path) -> None:
    with Ledger(tmp_path / "g.sqlite") as ledger:
        question = Question("k", "a", Example("e", ""), 0, 0, None, {"engine": "openai"})
        ledger.put(question, "teacher", Reply(Outcome.OK, "x"))
        (tmp_path / "g.sqlite").unlink()
        with pytest.raises(RunDirError, match="deleted or replaced while answers were recorded"):
            ledger.put(question, "teacher", Reply(Outcome.OK, "x"))
