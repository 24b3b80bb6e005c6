"""A finished run that can't be written: on a file system that is read-only, or somebody else's."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plad.answers.ledger import Ledger
from plad.answers.question import Question
from plad.answers.reply import Reply
from plad.data.formats import write_pairs_parquet
from plad.records import Outcome, Pair
from plad.rundir.writing import write_error
from tests.support.command import call, call_without_rights, open_folder, protect
from tests.support.written_runs import BAD, EXAMPLES, GOOD, write_full_run

READS = (
    ("status",),
    ("show", "generations"),
    ("show", "pairs"),
    ("show", "judgements"),
    ("ledger",),
    ("report", "--terminal"),
    ("compare",),
)


def closed(run: Path) -> None:
    """Nobody has it open: SQLite's two files are gone."""
    for name in ("-wal", "-shm"):
        (run / f"generations.sqlite{name}").unlink(missing_ok=True)


def left_open(run: Path) -> None:
    """As a killed process leaves it: a row that stands in the -wal alone."""
    ledger = Ledger(run / "generations.sqlite")
    question = Question("k9", "a9", EXAMPLES[0], 1, 0, None, {"engine": "openai"})
    ledger.put(question, "teacher", Reply(Outcome.OK, "only in the wal"))
    for name in ("", "-wal", "-shm"):
        shutil.copyfile(run / f"generations.sqlite{name}", run / f"copy{name}")
    ledger.close()
    for name in ("", "-wal", "-shm"):
        (run / f"copy{name}").replace(run / f"generations.sqlite{name}")


def without_index(run: Path) -> None:
    """As a copy of the two files that hold rows leaves it."""
    left_open(run)
    (run / "generations.sqlite-shm").unlink()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("written") / "run"
    write_full_run(run, EXAMPLES, {"teacher": GOOD, "student_sft": BAD, "student": GOOD})
    write_pairs_parquet(run / "pairs.parquet", [Pair("e00#0-0", "prompt", "a", "b", "teacher", "student_sft")])
    return run


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as place:
        yield place


@pytest.mark.parametrize("state", [closed, left_open, without_index])
def test_all_that_reads_a_run_reads_one_that_cannot_be_written(
    written: Path, folder: Path, state: Callable[[Path], None]
) -> None:
    run = folder / "run"
    shutil.copytree(written, run)
    state(run)
    expected = [call(command, run, *more) for command, *more in READS]
    state(run)
    protect(run)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    for (command, *more), known in zip(READS, expected, strict=True):
        assert call_without_rights(command, run, *more) == known, command
        assert known[0] == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    if state is not closed:
        assert "only in the wal" in call_without_rights("show", run, "generations", "-n", 1)[1]


def test_what_writes_says_so_in_one_line(written: Path, folder: Path) -> None:
    run = folder / "run"
    shutil.copytree(written, run)
    shutil.copytree(written, folder / "other")
    (folder / "config.yaml").write_text(
        f"run: {{dir: {run}}}\ndata: {{train: a.jsonl, test: b.jsonl}}\nteacher: {{model: t}}\nstudent: {{model: s}}\n"
    )
    protect(run)
    for command in (
        ("run", folder / "config.yaml"),
        ("report", run),
        ("ledger", run, "--export", run / "answers.parquet"),
        ("compare", run, folder / "other", "--html", run / "page.html"),
    ):
        code, _, err = call_without_rights(*command)
        first, *ways = err.splitlines()
        assert code == 2, err
        assert first.startswith(f"error: {run}"), err
        assert "Permission denied" in first, err
        assert all(way.startswith("  -> ") for way in ways), err
    target = folder / "open"
    target.mkdir()
    assert call_without_rights("ledger", run, "--export", target / "answers.parquet")[0] == 0


def test_a_finished_run_of_somebody_else_is_reused(written: Path, folder: Path) -> None:
    """Its answers are taken over, and its folders without their protection."""
    from plad.pipeline.reuse import _link

    run = folder / "run"
    shutil.copytree(written, run)
    protect(run)
    with Ledger(folder / "mine.sqlite") as ledger:
        assert ledger.take_over(run / "generations.sqlite") == 3
    _link(run / "eval", folder / "eval")
    (folder / "eval/new").write_text("")
    assert os.access(folder / "eval", os.W_OK)
    assert (folder / "eval").stat().st_mode & 0o200


def test_a_ledger_that_cannot_be_written_is_no_full_disk(written: Path, folder: Path) -> None:
    run = folder / "run"
    shutil.copytree(written, run)
    protect(run)
    code, _, err = call_without_rights("judge-check", "{type: llm, model: m, base_url: 'http://127.0.0.1:9'}",
                                       "--limit", "1", "--ledger", run / "generations.sqlite")  # fmt: skip
    assert code == 2
    assert "this user may not open the ledger" in err
    assert "room" not in err


def test_a_read_only_file_system_is_said_in_one_line() -> None:
    error = write_error(OSError(30, "Read-only file system", "/mnt/run/run.lock"), Path("/mnt/run/run.lock"))
    assert str(error).splitlines()[0] == "/mnt/run/run.lock: can't be written: Read-only file system"


def test_an_immutable_ledger_is_never_one_with_a_log(folder: Path) -> None:
    from plad.answers.reading import for_reading

    file = folder / "g.sqlite"
    with Ledger(file):
        assert "immutable" not in for_reading(file)[0]  # a writer may come
    assert sqlite3.connect(file).execute("PRAGMA user_version").fetchone()
