"""What SECURITY.md says: each sentence names tests that exist, and those that have no better place are here."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from plad.config.file import load_config
from plad.errors import PladError
from tests.support.command import run_here
from tests.support.task import write_answers, write_task
from tests.support.training_runs import main as train_here

ROOT = Path(__file__).parents[2]


def test_every_sentence_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    bullets = re.findall(r"^- (.*?)(?=^- |^$)", text, re.MULTILINE | re.DOTALL)
    sentences = [s for b in bullets for s in re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(b.split()))]
    numbers = [re.findall(r" \[(\d+)\]\.$", sentence) for sentence in sentences]
    assert [s for s, n in zip(sentences, numbers, strict=True) if len(n) != 1] == []
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
    assert [n for (n,) in numbers] == list(rows)
    for row in rows.values():
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named
        for file, name in named:
            assert f"def {name}(" in (ROOT / file).read_text(), (file, name)


def test_a_checkpoint_is_read_as_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(tmp_path)
    read: list[Any] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (read.append(k.get("weights_only")), load(*a, **k))[1])
    train_here(tmp_path)  # goes on from its newest checkpoint
    assert read
    assert all(only is True for only in read)


@pytest.mark.parametrize(
    "change",
    [
        "teacher.trust_remote_code=true",
        "teacher.engine={type: os.system}",
        "distill.objective={type: 'os:system'}",
        "run.seed=!!python/object/apply:os.getpid []",
    ],
)
def test_no_config_runs_code(change: str, tmp_path: Path) -> None:
    with pytest.raises(PladError):
        load_config(write_task(tmp_path), [change])
    sources = [p.read_text() for p in (ROOT / "src").rglob("*.py")]
    assert sum(source.count("trust_remote_code=False") for source in sources) >= 4
    assert not any(re.search(r"trust_remote_code\W+True|yaml\.(unsafe_|full_)?load\b", source) for source in sources)


def test_a_run_on_local_files_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*place: Any) -> None:
        raise AssertionError(f"connects to {place[1:]}")

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_answers(tmp_path / "answers.jsonl", ("train", "validation", "test"))
    teacher = {"model": "somebody", "sft": False, "engine": {"type": "file", "path": "answers.jsonl"}}
    run = run_here(write_task(tmp_path, teacher=teacher, sft__epochs=1), to="report")
    assert (run / "report/index.html").is_file()
