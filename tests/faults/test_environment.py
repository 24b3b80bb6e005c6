"""What a machine may lack or do: no network, no package, no GPU, too little memory, a clock that jumps, a suspend.

Cases 20, 57 and 59 of the fault matrix.
"""

import importlib.util
import json
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import errors

from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.models import PromptSection
from plad.errors import PolicyError
from plad.records import Example, Generation, Outcome
from plad.remote.limits import RealClock
from plad.remote.openai import OpenAI, OpenAIEngine
from plad.sampling.transformers import Transformers
from tests.support.command import call
from tests.support.servers.scripted import Call, FakeClock, Response, error, serve
from tests.support.servers.scripted import answer as reply_with
from tests.support.task import write_task
from tests.support.tiny_models import tiny_policy

EXAMPLES = [Example(f"id {i}", f"question {i} " * (i % 3 + 1)) for i in range(12)]
ANSWERS = AnswerSet("teacher", "w", Sampling(0.7, 6, 2), 0)


# -- 57: what is missing is one sentence with the way out, and validate says it first --------------------


def write(folder: Path, **sections: Any) -> Path:
    path = write_task(folder)
    made = yaml.safe_load(path.read_text())
    for name, section in sections.items():
        made[name] = section
    path.write_text(yaml.safe_dump(made))
    return path


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """A package that isn't installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else found(name, *a))


def hub(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A hub that refuses; what is asked of this machine's cache finds nothing."""
    kind = getattr(errors, name)

    def refuse(*_: object, local_files_only: bool = False, **__: object) -> None:
        if local_files_only or name == "LocalEntryNotFoundError":
            raise errors.LocalEntryNotFoundError("not here")
        raise kind("no", response=types.SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


ENDPOINT = {"model": "big", "engine": {"type": "openai", "base_url": "http://127.0.0.1:9/v1"}}
VLLM = {"model": "model", "lora": None, "engine": {"type": "vllm"}}
HUB_STUDENT = {"model": "owner/name", "lora": None}


@pytest.mark.parametrize(
    ("sections", "package", "says", "command"),
    [
        ({"teacher": ENDPOINT}, "aiohttp", "needs the package aiohttp", "pip install 'plad[api]'"),
        ({"teacher": VLLM}, "vllm", "needs the package vllm", "pip install 'plad[vllm]'"),
        ({"student": {"model": "m.gguf"}}, "gguf", "needs the package gguf", "pip install 'plad[gguf]'"),
    ],
    ids=["aiohttp", "vllm", "gguf"],
)
def test_a_package_that_is_missing_is_named_with_the_command(
    sections: dict[str, Any],
    package: str,
    says: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path, **sections)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    without(monkeypatch, package)
    monkeypatch.setitem(sys.modules, package, None)
    for command_line in (("validate", path), ("run", path)):
        code, _, err = call(*command_line)
        assert code == 2, command_line
        assert says in err
        assert f"-> {command}" in err
        assert "Traceback" not in err
    assert not (tmp_path / "run/sft/student").exists()


@pytest.mark.parametrize(
    ("refusal", "offline", "says", "command", "validate"),
    [
        ("LocalEntryNotFoundError", True, "hub can't be reached or is switched off", "hf download owner/name", 2),
        ("LocalEntryNotFoundError", False, "hub can't be reached or is switched off", "hf download owner/name", 0),
        ("GatedRepoError", False, "the model is gated", "hf auth login", 0),
        ("RepositoryNotFoundError", False, "no such model on the hub", "hf auth login", 0),
    ],
    ids=["offline", "no network", "gated", "not there"],
)
def test_a_hub_that_gives_nothing_is_one_sentence_before_anything_is_trained(
    refusal: str,
    offline: bool,
    says: str,
    command: str,
    validate: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Validate downloads nothing: it refuses where the hub is switched off, else says what it didn't look at."""
    path = write(tmp_path, student=HUB_STUDENT)
    hub(monkeypatch, refusal)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    code, out, err = call("validate", path)
    assert code == validate, err
    assert ("hf download owner/name" in err) if validate else ("student owner/name: " in out.split("not checked:")[1])
    code, _, err = call("run", path)
    assert code == 2
    assert says in err
    assert command in err
    assert not (tmp_path / "run/sft").exists()


def test_validate_says_that_vllm_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("vllm")
    module.__spec__ = types.SimpleNamespace(name="vllm")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = call("validate", write(tmp_path, teacher=VLLM))
    assert code == 0, err
    assert "teacher.engine: vllm, but no GPU is seen here; engine transformers runs without one" in out


# -- 20: too little memory, an engine that hangs ---------------------------------------------------------


class Scarce:
    """Lets the sampler's forward pass run out of memory after some steps, `deaths` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deaths: int, after: int) -> None:
        from plad.sampling.slots import SlotSampler

        self.slots: list[int] = []
        steps = 0
        forward = SlotSampler.forward

        def scarce(sampler: Any, *given: Any) -> Any:
            nonlocal deaths, steps
            steps += 1
            if not self.slots or self.slots[-1] != len(sampler.slots):
                self.slots.append(len(sampler.slots))
            if deaths and steps > after:
                deaths, steps = deaths - 1, 0
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(sampler, *given)

        monkeypatch.setattr(SlotSampler, "forward", scarce)


POLICY = tiny_policy(initializer_range=0.3)


def sampled(ledger: Ledger) -> list[Generation]:
    return answer(Transformers(POLICY, "w", slots=4), EXAMPLES, ANSWERS, ledger)


def test_out_of_memory_while_sampling_goes_on_with_half_the_slots_and_the_same_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Ledger(":memory:") as ledger:
        expected = sampled(ledger)
    scarce = Scarce(monkeypatch, deaths=1, after=15)
    with Ledger(":memory:") as ledger:
        assert sampled(ledger) == expected
    assert scarce.slots[-2:] == [4, 2]


def test_out_of_memory_twice_keeps_what_is_recorded_and_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(":memory:") as ledger:
        Scarce(monkeypatch, deaths=2, after=15)
        with pytest.raises(PolicyError, match="also with 2 answers at once") as caught:
            sampled(ledger)
        assert caught.value.where == "generate.slots"
        kept = sum(ledger.counts()["teacher"].values())
        assert 0 < kept < 24
        assert len(sampled(ledger)) == 24


def test_vllm_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from plad.sampling.vllm import Vllm

    gone = threading.Event()
    llm = types.SimpleNamespace(generate=lambda *_, **__: gone.wait(30))
    monkeypatch.setattr(Vllm, "_parameters", lambda *_: None)
    engine = Vllm(lambda: llm, POLICY.prompt, "w", 1000, "float32", 4, timeout_s=0.05)
    try:
        with Ledger(":memory:") as ledger, pytest.raises(PolicyError, match=r"no answer within 0.05 s") as caught:
            answer(engine, EXAMPLES, ANSWERS, ledger)
        assert "every whole chunk is kept" in str(caught.value)
    finally:
        gone.set()


# -- 59: clocks -----------------------------------------------------------------------------------------


def engine_at(url: str, clock: Any, **settings: Any) -> OpenAI:
    section = OpenAIEngine(base_url=url, **{"concurrency": 2, "timeout_s": 5.0, **settings})
    return OpenAI(section, "big", PromptSection(), clock=clock)


def test_waits_are_measured_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes back by a day with every look at it: pace, pause and progress don't notice."""
    now = [1e9]

    def backwards() -> float:
        now[0] -= 86_400
        return now[0]

    def script(call_: Call) -> Response:
        return error(429, headers={"Retry-After": "0.01"}) if call_.number == 3 else reply_with("yes")

    with serve(script) as server, Ledger(":memory:") as ledger:
        monkeypatch.setattr(time, "time", backwards)
        started = time.monotonic()
        found = answer(engine_at(server.url, RealClock(), rpm=60_000), EXAMPLES, ANSWERS, ledger)
        seconds = time.monotonic() - started
    assert {g.outcome for g in found} == {Outcome.OK}
    assert seconds < 60


class Suspended(FakeClock):
    """Every wait is a night: the machine was asleep."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 8 * 3600)


def test_a_machine_that_slept_through_a_pause_goes_on() -> None:
    """Two nights are no rate limit that never ends: a pause counts for as long as it was to last."""

    def script(call_: Call) -> Response:
        return error(429, headers={"Retry-After": "5"}) if call_.number < 12 else reply_with("yes")

    with serve(script) as server, Ledger(":memory:") as ledger:
        found = answer(engine_at(server.url, Suspended(), concurrency=1), EXAMPLES, ANSWERS, ledger)
    assert {g.outcome for g in found} == {Outcome.OK}


def test_a_machine_that_slept_while_a_batch_ran_collects_it() -> None:
    from plad.answers.jobs import Jobs
    from tests.support.servers.batch_provider import Provider

    with serve(Provider()) as server, Ledger(":memory:", run="r") as ledger:
        section = OpenAIEngine(base_url=server.url, mode="batch")
        jobs = Jobs(ledger, server.url, "teacher")
        engine = OpenAI(section, "big", PromptSection(), clock=Suspended(), jobs=jobs)
        assert {g.outcome for g in answer(engine, EXAMPLES, ANSWERS, ledger)} == {Outcome.OK}


@pytest.mark.parametrize("command", [["run"], ["sft"], ["reward"]])
def test_one_of_several_processes_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Each would train on rows of its own, with gradients that nobody adds up."""
    config = write_task(tmp_path)
    if command == ["reward"]:
        model = yaml.safe_load(config.read_text())["student"]["model"]
        rows = [{"prompt": f"p {i}", "chosen": "good", "rejected": "bad"} for i in range(8)]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        section = {"model": model, "data": {"train": "pairs.jsonl"}, "out": str(tmp_path / "run/reward")}
        config.write_text(yaml.safe_dump(section))
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = call(*command, config)
    assert code == 2
    assert "WORLD_SIZE=2: a launcher" in err
    assert [f for f in (tmp_path / "run").rglob("*") if f.is_file() and f.suffix != ".log"] == []
