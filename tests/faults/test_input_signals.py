"""Ctrl-C, SIGTERM, a closed pipe and two runs at once, through the real command in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
from plad.pipeline import run as pipeline
from plad.cli import main

def wait(config, run, **_):
    print("working", flush=True)
    time.sleep(60)

pipeline.run = wait
main()
"""


@pytest.fixture
def config(tmp_path) -> Path:
    (tmp_path / "c.yaml").write_text(
        f"run: {{dir: {tmp_path / 'run'}}}\ndata: {{train: a.jsonl, test: b.jsonl}}\n"
        "teacher: {model: t}\nstudent: {model: s}\n"
    )
    return tmp_path / "c.yaml"


def start(*args: str) -> subprocess.Popen:
    """A run that waits inside its first stage."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_130_with_the_command_that_continues_it(config, sig):
    process = start("run", str(config), "sft.epochs=2", "--clean", "sft")
    process.send_signal(sig)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "error: stopped; everything finished so far is kept" in err
    assert f"-> continue with: plad run {config} sft.epochs=2\n" in err
    assert "Traceback" not in err
    assert "Traceback" not in (config.parent / "run/run.log").read_text()


def test_a_second_run_in_the_directory_is_refused_and_the_next_one_is_not(config):
    first = start("run", str(config))
    try:
        second = subprocess.run(
            [sys.executable, "-m", "plad", "run", str(config)],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert second.returncode == 2
        assert f"in use by pid {first.pid} on " in second.stderr
        status = subprocess.run(
            [sys.executable, "-m", "plad", "status", str(config.parent / "run"), "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(status.stdout)["running"].startswith(f"pid {first.pid} on ")
    finally:
        first.kill()
        first.communicate()
    third = start("run", str(config))
    third.send_signal(signal.SIGTERM)
    third.communicate(timeout=20)
    assert third.returncode == 130


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    """`plad init | head -1`: the pipe is closed before everything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "plad", "init", str(tmp_path / "p")],
        check=False, stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert process.stderr == ""
    assert process.returncode == 0
