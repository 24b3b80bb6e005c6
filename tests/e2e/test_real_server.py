"""A real OpenAI-compatible server, `transformers serve` with the demo model, as teacher of a whole small run."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plad.answers.ledger import Ledger
from plad.judges.base import JudgeResources, compare
from plad.judges.llm import LlmJudge
from plad.records import Example
from tests.support.command import call, environment
from tests.support.task import ROOT, write_task

MODEL = ROOT / "models/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server while the tests of this file run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(MODEL), "--device", "cpu"]
    place = ["--host", "127.0.0.1", "--port", str(port)]
    cache = {"HF_HUB_CACHE": str(tmp_path_factory.mktemp("cache"))}
    environ = {**os.environ, **environment(), **cache}
    with subprocess.Popen([*command, *place], env=environ, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = []
        for line in server.stderr:
            said.append(line)
            if "Uvicorn running" in line:
                break
        else:
            pytest.fail("".join(said))
        with subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL):  # a full pipe would stop it
            yield f"http://127.0.0.1:{port}/v1"
            server.terminate()


def config_of(folder: Path, url: str, **engine: str) -> Path:
    path = write_task(folder, sft__epochs=1, distill__validation={"evaluations": 0})
    config = yaml.safe_load(path.read_text())
    config["teacher"] = {"model": str(MODEL), "engine": {"type": "openai", "base_url": url, "concurrency": 2, **engine}}
    path.write_text(yaml.safe_dump(config))
    return path


def test_it_teaches_a_whole_run(tmp_path: Path, url: str) -> None:
    config = config_of(tmp_path, url)
    code, out, err = call("validate", config, "--online")
    assert code == 0, err
    assert f"teacher: online: served by {MODEL}" in out
    code, out, err = call("run", config)
    assert code == 0, out + err
    metrics = json.loads((tmp_path / "run/eval/metrics.json").read_text())
    assert set(metrics["systems"]) == {"target", "teacher", "student_sft", "student"}
    assert metrics["systems"]["teacher"]["words"]["value"] > 2
    teacher = next(
        s for s in json.loads(call("ledger", tmp_path / "run", "--json")[1])["systems"] if s["engine"] == "openai"
    )
    assert teacher["answers"] == 18
    assert set(teacher["outcomes"]) <= {"ok", "truncated"}
    assert (teacher["estimated"], teacher["lost"]) == (0, 0)
    assert teacher["prompt_tokens"] > 18 * 20
    assert call("run", config, "--clean", "generate", "--to", "pair")[0] == 0
    again = json.loads(call("ledger", tmp_path / "run", "--json")[1])
    assert sum(s["attempts"] for s in again["systems"]) == 18


def test_it_answers_plain_completions_too(tmp_path: Path, url: str) -> None:
    config = config_of(tmp_path, url, api="completions")
    code, out, err = call("validate", config, "--online")
    assert code == 0, out + err
    assert "outcome truncated" in out or "outcome ok" in out


def test_it_judges_and_its_verdicts_are_kept(tmp_path: Path, url: str) -> None:
    """So small a model decides little; what matters is that every reply is asked for once, and accounted for."""
    section = LlmJudge(
        base_url=url, model=str(MODEL), task="summary", max_unjudged=1.0, max_new_tokens=32, concurrency=2
    )
    rows = [Example(f"row-{i}", f"Summarise: the cat sat on mat {i}.", ("A cat sat.",)) for i in range(2)]

    def judged() -> tuple[list[Any], dict[str, Any]]:
        judge = section.open(JudgeResources(open_ledger=lambda: Ledger(tmp_path / "replies.sqlite")))
        return compare(
            judge, rows, ["A cat sat down."] * 2, ["Dogs."] * 2, [row.references for row in rows]
        ), judge.describe()

    found, facts = judged()
    assert facts["decided"] + sum(facts["unjudged"].values()) == facts["comparisons"] == len(found) == 2
    with Ledger(tmp_path / "replies.sqlite", readonly=True) as ledger:
        replies = list(ledger.rows())
    assert len(replies) == 4, "both orders of both rows"
    assert all(reply.generation.text for reply in replies)
    assert judged() == (found, facts)
    with Ledger(tmp_path / "replies.sqlite", readonly=True) as ledger:
        assert [r.created for r in ledger.rows()] == [r.created for r in replies], "nothing is asked twice"
