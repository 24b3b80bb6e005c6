"""The vLLM engine against a stand-in module: what it hands over, what it makes of the answers, and what if it dies."""

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from plad.answers.fill import answer, fill
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.models import LoraSection, ModelSection, TeacherSection
from plad.errors import MissingExtraError, PolicyError
from plad.policy.load import load_policy, save_policy
from plad.records import Example, Outcome
from plad.sampling.vllm import VllmEngine
from tests.support.tiny_models import tiny_folder

EXAMPLES = [Example(f"id {i}", f"question {i} " * (i + 1)) for i in range(10)]
ANSWERS = AnswerSet("teacher", "w", Sampling(0.7, 8, 2), 0)


@dataclass
class FakeOutput:
    token_ids: list[int]
    finish_reason: str


class FakeLLM:
    """Echoes the prompt's first tokens; dies when told to."""

    started: ClassVar[list[dict[str, Any]]] = []
    batches: ClassVar[list[int]] = []
    asked: ClassVar[list[tuple[Any, ...]]] = []
    deaths = 0

    def __init__(self, **options: Any) -> None:
        FakeLLM.started.append(options)

    def generate(self, prompts: list[Any], parameters: list[Any], use_tqdm: bool, **more: Any) -> list[Any]:
        FakeLLM.batches.append(len(prompts))
        if FakeLLM.deaths:
            FakeLLM.deaths -= 1
            raise RuntimeError("CUDA out of memory")
        made = []
        for prompt, p in zip(prompts, parameters, strict=True):
            ids = prompt["prompt_token_ids"]
            FakeLLM.asked.append((tuple(ids), p.seed, more))
            whole = p.seed % 2 == 0
            tokens = [*ids[:3], p.stop_token_ids[0]] if whole else ids[:3]
            made.append(types.SimpleNamespace(outputs=[FakeOutput(tokens, "stop" if whole else "length")]))
        return made


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    module, lora, request = (types.ModuleType(n) for n in ("vllm", "vllm.lora", "vllm.lora.request"))
    module.LLM, module.SamplingParams = FakeLLM, types.SimpleNamespace  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name="vllm")  # type: ignore[assignment]
    request.LoRARequest = lambda *given: given  # type: ignore[attr-defined]
    for m in (module, lora, request):
        monkeypatch.setitem(sys.modules, m.__name__, m)
    FakeLLM.started, FakeLLM.batches, FakeLLM.asked, FakeLLM.deaths = [], [], [], 0
    return FakeLLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "m")


def engine(folder: Path, **settings: Any) -> Any:
    return VllmEngine(**{"chunk": 4, **settings}).load(ModelSection(model=str(folder)), folder, "w")


def test_answers_are_decoded_and_their_ends_told(vllm: Any, folder: Path) -> None:
    with Ledger(":memory:") as ledger:
        found = answer(engine(folder), EXAMPLES, ANSWERS, ledger)
        again = fill(engine(folder), EXAMPLES, ANSWERS, ledger)
    assert {g.outcome for g in found} <= {Outcome.OK, Outcome.TRUNCATED}
    assert sum(again.values()) == 20
    assert vllm.batches == [4] * 5
    assert len(vllm.started) == 1, "it starts with the first question, and not where all is recorded"
    assert len({seed for _, seed, _ in vllm.asked}) == 20
    policy = load_policy(ModelSection(model=str(folder)))
    for g in found:
        assert g.text == policy.prompt.decode(g.token_ids)
        assert (g.outcome is Outcome.OK) == (g.token_ids[-1] in policy.eos_ids)
    assert {ids for ids, _, _ in vllm.asked} == {tuple(policy.prompt.encode_prompt(e.prompt)) for e in EXAMPLES}


def test_a_prompt_that_is_too_long_fails_no_chunk(vllm: Any, folder: Path) -> None:
    long = Example("long", "x " * 400)
    with Ledger(":memory:") as ledger:
        counts = fill(engine(folder), [EXAMPLES[0], long, EXAMPLES[1]], ANSWERS, ledger)
    assert counts["too_long"] == 2
    assert sum(counts.values()) == 6


def test_it_is_started_again_once_with_smaller_chunks_and_nothing_is_lost(vllm: Any, folder: Path) -> None:
    vllm.deaths = 1
    with Ledger(":memory:") as ledger:
        assert sum(fill(engine(folder), EXAMPLES, ANSWERS, ledger).values()) == 20
    assert len(vllm.started) == 2
    assert vllm.batches == [4] + [2] * 10


def test_if_it_dies_again_whole_chunks_are_kept_and_the_way_out_is_named(vllm: Any, folder: Path) -> None:
    with Ledger(":memory:") as ledger:
        fill(engine(folder), EXAMPLES[:2], ANSWERS, ledger)
        vllm.deaths = 2
        with pytest.raises(PolicyError, match=r"vLLM died twice \(RuntimeError: CUDA out of memory\)") as caught:
            fill(engine(folder), EXAMPLES, ANSWERS, ledger)
        assert "gpu_memory_utilization" in str(caught.value)
        assert sum(ledger.counts()["teacher"].values()) == 4
        assert sum(fill(engine(folder), EXAMPLES, ANSWERS, ledger).values()) == 20


def test_an_adapter_is_sampled_on_its_base(vllm: Any, folder: Path, tmp_path: Path) -> None:
    policy = load_policy(ModelSection(model=str(folder)), attach_lora=LoraSection(r=12))
    save_policy(policy, tmp_path / "adapter")
    with Ledger(":memory:") as ledger:
        fill(engine(tmp_path / "adapter"), EXAMPLES[:1], ANSWERS, ledger)
    options = vllm.started[0]
    assert (options["model"], options["enable_lora"], options["max_lora_rank"]) == (str(folder), True, 16)
    assert vllm.asked[0][2]["lora_request"][2] == str(tmp_path / "adapter")


def test_a_teacher_behind_vllm_has_its_weights_here() -> None:
    section = TeacherSection(model="m", engine=VllmEngine())
    assert section.local
    assert section.sft
    assert section.lora is not None


def test_without_vllm_the_way_out_is_named(folder: Path) -> None:
    with pytest.raises(MissingExtraError, match="needs the package vllm") as caught:
        engine(folder)
    assert "plad[vllm]" in str(caught.value)
