"""Run directories under fire: two processes, dead owners, foreign places, other versions."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from plad.errors import RunDirError
from plad.rundir.directory import open_run
from plad.rundir.manifest import FINGERPRINTS, SCHEMA, read_manifest

HOLD = "import sys, time; from pathlib import Path; from plad.rundir.directory import open_run; "
HOLD += "run = open_run(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def hold(path: Path) -> subprocess.Popen:
    """Another process that holds the run directory's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen, sig: int = signal.SIGKILL) -> None:
    process.send_signal(sig)
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_process_is_refused_at_once_and_told_who_holds_it(tmp_path):
    other = hold(tmp_path / "r")
    try:
        with pytest.raises(RunDirError, match=f"in use by pid {other.pid} on {socket.gethostname()}"):
            open_run(tmp_path / "r")
    finally:
        end(other)


def test_a_killed_owner_blocks_nobody(tmp_path):
    end(hold(tmp_path / "r"))
    assert (tmp_path / "r/run.lock").read_text().startswith("pid ")
    with open_run(tmp_path / "r"):
        assert (tmp_path / "r/run.lock").read_text() == f"pid {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("place", ["../x", "a/../../x", "a/.."])
def test_a_place_upwards_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirError, match="may not point upwards"):
        open_run(Path(place))
    assert not list(tmp_path.iterdir())


def test_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(RunDirError, match="symbolic link"):
        open_run(tmp_path / "link")
    assert not list((tmp_path / "real").iterdir())


def test_a_file_and_a_foreign_folder_are_refused_untouched(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.tex").write_text("mine")
    with pytest.raises(RunDirError, match="is a file"):
        open_run(tmp_path / "file")
    with pytest.raises(RunDirError, match="nothing is overwritten"):
        open_run(tmp_path / "folder")
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_and_a_new_absolute_one_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "a/b/new"):
        with open_run(tmp_path / name) as run:
            assert json.loads((run / "manifest.json").read_text()) == {
                "schema": SCHEMA,
                "stages": {},
                "id": run.id,
                "fingerprints": FINGERPRINTS,
            }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({"schema": SCHEMA + 1, "stages": {}}), "written by another version of plad"),
        (json.dumps({"stages": {}}), "written by another version of plad"),
        ('{"schema": 1, "sta', "damaged manifest"),
        ('{"schema": 1, "stages": {"data": {"seconds": "soon"}}}', r"damaged manifest \(stages.data.seconds: "),
        ("[]", r"damaged manifest \(not an object\)"),
    ],
)
def test_a_run_of_another_version_or_damaged_is_refused_and_unlocked(tmp_path, content, message):
    with open_run(tmp_path / "r"):
        pass
    (tmp_path / "r/manifest.json").write_text(content)
    for _ in range(2):
        with pytest.raises(RunDirError, match=message):
            open_run(tmp_path / "r")
    assert (tmp_path / "r/manifest.json").read_text() == content


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(RunDirError, match="not a run directory"):
        read_manifest(tmp_path)
