"""Asking a run's systems and serving its student, on a finished tiny run."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from plad.errors import MissingExtraError, RunDirError
from plad.extras.use.serve import serve_command
from tests.support.command import call, environment, plad, plad_command
from tests.support.task import write_task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    plad("run", write_task(folder))
    return folder / "run"


def asked(run: Path, prompt: str, *options: object) -> list[dict]:
    return json.loads(plad("try", run, prompt, *options, "--json"))["replies"]


def test_it_answers_as_the_evaluation_did(run: Path) -> None:
    """Greedy, the same prompt gets the text that was evaluated, from each system."""
    rows = [json.loads(line) for line in (run / "eval/answers.jsonl").read_text().splitlines()]
    prompts = {r["id"]: r["prompt"] for r in map(json.loads, (run / "data/test.jsonl").read_text().splitlines())}
    systems = ("student", "student_sft", "teacher")
    row = max(rows, key=lambda r: sum(len(r["answers"][s]["text"]) for s in systems))
    assert row["answers"]["teacher"]["text"]
    options = [part for name in systems for part in ("--system", name)]
    for reply in asked(run, prompts[row["id"]], *options):
        evaluated = row["answers"][reply["system"]]
        assert (reply["text"], reply["outcome"]) == (evaluated["text"], evaluated["outcome"])
    assert [r["system"] for r in asked(run, "Hello", *options)] == list(systems)


def test_nothing_is_recorded(run: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file()}
    asked(run, "Hello", "--temperature", 1.0, "--max-new-tokens", 3)
    assert {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file()} == before


def test_prompts_are_typed_one_by_one(run: Path) -> None:
    """At a terminal: each line is a prompt, an empty one is none, Ctrl-D ends."""
    ours, theirs = pty.openpty()
    os.write(ours, b"Hello\n\nAgain\n\x04")
    child = subprocess.run(
        plad_command("try", run, "--max-new-tokens", "3"),
        env=environment(), stdin=theirs, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("╭") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Hello", "--system", "nobody"], "no system 'nobody' in this run\n  -> one of student, student_sft, teacher"),
        ([" "], "PROMPT: the prompt is empty"),
    ],
)
def test_what_cannot_be_asked_is_one_message(run: Path, arguments: list[str], message: str) -> None:
    code, _, err = call("try", run, *arguments)
    assert code == 2
    assert message in err


def test_it_is_served_by_transformers(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = plad_command("serve", run, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu")
    with subprocess.Popen(command, env={**os.environ, **environment()}, stderr=subprocess.DEVNULL) as server:
        try:
            body = {"model": str(run / "student"), "prompt": "Hello", "max_tokens": 4, "temperature": 0}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/completions",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            for _ in range(300):
                try:
                    with urllib.request.urlopen(request, timeout=60) as response:
                        answer = json.load(response)
                    break
                except OSError:
                    assert server.poll() is None
                    time.sleep(0.2)
            else:
                pytest.fail("no answer within a minute")
        finally:
            server.send_signal(signal.SIGTERM)
    assert answer["choices"][0]["text"] is not None


def test_a_server_that_is_missing_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtraError, match="vllm is not installed"):
        serve_command(run, "vllm")
    with pytest.raises(RunDirError, match="no GGUF file yet"):
        serve_command(run, "llama-server")
    (tmp_path / "llama-server").write_text("#!/bin/sh\n")
    (tmp_path / "llama-server").chmod(0o755)
    (run / "export").mkdir()
    (run / "export/student.gguf").write_bytes(b"GGUF")
    assert serve_command(run, "llama-server", ["--port", "1"]) == [
        *(str(tmp_path / "llama-server"), "-m", str(run / "export/student.gguf"), "--port", "1")
    ]
    assert call("serve", run, "--with", "nothing")[0] == 2
