"""An engine of another package, found by its entry point: nothing in plad names it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from plad.answers.ledger import Ledger
from plad.config.engines import EngineSection
from plad.config.file import load_config
from plad.report.card import card_text
from plad.report.parts.run_facts import RunFacts
from tests.support.command import call, write_package
from tests.support.task import write_task

MODULE = '''
"""Answers every prompt with its own last words, turned round."""

from typing import Annotated, ClassVar, Literal

from plad.answers.engine import EngineKind
from plad.answers.reply import Reply
from plad.config.base import PACES
from plad.errors import ConfigError
from plad.records import Outcome


class EchoEngine(EngineKind):
    type: Literal["echo"] = "echo"
    words: int = 2
    threads: Annotated[int, PACES] = 1
    behind: ClassVar[str] = "a wall"

    def require(self):
        if self.words == 13:
            raise ConfigError("13 words bring bad luck", where="words", fix="take 12")

    def open(self, resources):
        return Echo(self)


class Echo:
    def __init__(self, section):
        self.section = section

    def spec(self):
        return {"engine": "echo", **self.section.shaping()}

    def encode(self, example):
        return example.prompt

    def answer(self, questions, sampling, record):
        for q in questions:
            text = " ".join(reversed(q.prompt.split()[-self.section.words :]))
            record(q, Reply(Outcome.OK, f"{text} {q.sample}", attempts=0))
'''


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run whose teacher is the engine of a package beside plad."""
    packages = write_package(tmp_path / "site", "echo_engine", MODULE, ("plad.engines", "echo", "EchoEngine"))
    monkeypatch.syspath_prepend(str(packages))
    path = write_task(tmp_path / "task")
    settings = yaml.safe_load(path.read_text())
    settings["teacher"] = {"model": "the wall", "engine": {"type": "echo", "words": 3, "threads": 4}}
    path.write_text(yaml.safe_dump(settings))
    yield path
    monkeypatch.undo()
    module = sys.modules.pop("echo_engine")  # a kind without a type is none: no other test shall meet it
    del module.EchoEngine.model_fields["type"]
    assert "echo" not in EngineSection.kinds()


def test_it_is_configured_checked_asked_and_named(config: Path) -> None:
    section = load_config(config).teacher.engine
    assert (section.tag(), section.shaping()) == ("echo", {"type": "echo", "words": 3})
    code, out, err = call("validate", config)
    assert code == 0, err
    assert "the wall by engine echo" in out
    code, out, err = call("run", config, "--to", "pair")
    assert code == 0, out + err
    with Ledger(config.parent / "run/generations.sqlite", readonly=True) as ledger:
        answers = [row for row in ledger.table() if row["system"] == "teacher"]
    assert {row["engine"] for row in answers} == {"echo"}
    counts = json.loads((config.parent / "run/manifest.json").read_text())["stages"]["generate"]["counts"]
    assert counts["teacher"] == {"ok": len(answers)}
    assert all(len(row["text"].split()) == 4 for row in answers)
    assert "as it answers behind a wall" in card_text(load_config(config), RunFacts("x"))


def test_what_it_lacks_is_found_before_anything_runs(config: Path) -> None:
    code, out, err = call("validate", config, "teacher.engine.words=13")
    assert code == 2
    assert "teacher.engine.words: 13 words bring bad luck" in out + err
    code, _, err = call("validate", config, "teacher.engine.word=3")
    assert code == 2
    assert "did you mean teacher.engine.words?" in err
