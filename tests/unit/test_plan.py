"""`plad plan`: what a run will ask, cost and need, before anything is spent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from plad.config.engines import BatchSection, BudgetSection, Endpoint, PriceSection
from plad.config.models import LoraSection, ModelSection, PruneInit, TrainSettings
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.extras.plan.memory import need, read_model, trained_weights
from plad.extras.plan.price import BatchTime, Line, PacedTime, budget_stop, wall_times
from plad.extras.plan.requests import answer_requests, verdict_requests
from plad.policy.load import attach, load_policy
from plad.records import Example
from plad.remote.openai import OpenAIEngine
from plad.scoring.attention import plan_attention
from plad.scoring.layout import Group
from plad.scoring.score import score
from tests.support.command import call, environment
from tests.support.servers.scripted import Call, Response, answer, error, serve
from tests.support.task import write_task
from tests.support.tiny_models import CHATML, tiny_folder, train_tokenizer

ENDPOINT = Endpoint(base_url="http://h/v1", price=PriceSection(input=2.0, output=10.0), concurrency=4)


def line(**changes: Any) -> Line:
    """1,000 answers of a teacher: 1,000,000 tokens in, 100,000 out; at worst 3,000,000 and 500,000."""
    values: dict[str, Any] = {
        "stage": "generate",
        "system": "teacher",
        "split": "distill",
        "place": "teacher.engine",
        "answers": 1000,
        "held": 0,
        "prompt_tokens": 1_000_000,
        "completion_tokens": 100_000,
        "most_prompt_tokens": 3_000_000,
        "most_completion_tokens": 500_000,
        "basis": "the targets",
    }
    return Line(**{**values, **changes})


# -- price and time, by hand ----------------------------------------------------------------------------


def test_the_price_is_tokens_times_price() -> None:
    """1 M x 2 + 0.1 M x 10 = 3 dollars expected; 3 M x 2 + 0.5 M x 10 = 11 at worst."""
    priced, free = line().priced(ENDPOINT), line().priced(ENDPOINT.model_copy(update={"price": None}))
    assert (priced.usd, priced.most_usd) == pytest.approx((3.0, 11.0))
    assert (free.usd, free.most_usd) == (None, None)


@pytest.mark.parametrize(
    ("section", "spent", "worst", "limit", "answers"),
    [
        ({"usd": 3.0}, (0.0, 0), False, None, 0),
        ({"usd": 1.5}, (0.0, 0), False, "budget.usd", 500),  # half of 3
        ({"usd": 3.0}, (1.5, 0), False, "budget.usd", 500),  # what is spent counts
        ({"usd": 5.5}, (0.0, 0), True, "budget.usd", 500),  # half of 11
        ({"tokens": 1_100_000}, (0.0, 0), False, None, 0),
        ({"tokens": 275_000}, (0.0, 0), False, "budget.tokens", 250),  # a quarter of 1.1 M
        ({"usd": 1.0}, (2.0, 0), False, "budget.usd", 0),
    ],
)
def test_the_budget_stops_where_it_ends(
    section: dict[str, Any], spent: tuple[float, int], worst: bool, limit: str | None, answers: int
) -> None:
    ours = line(place=None, system="student_sft")
    found = budget_stop(BudgetSection(**section), [ours, line().priced(ENDPOINT)], spent, worst=worst)
    assert (found and found.limit) == limit
    assert (found.answers if found else 0) == pytest.approx(answers, abs=1)


@pytest.mark.parametrize(
    ("limits", "latency", "by", "seconds"),
    [
        ({"rpm": 100}, {}, "rpm", 600.0),  # 1,000 requests
        ({"tpm": 150_000}, {}, "tpm", 600.0),  # 1 M + 0.5 M tokens, as the client paces them
        ({}, {"teacher.engine": 2.0}, "concurrency", 500.0),  # 1,000 x 2 s / 4
        ({"rpm": 100}, {"teacher.engine": 9.0}, "concurrency", 2250.0),
        ({}, {}, None, None),
    ],
)
def test_time_is_that_of_the_limit_that_binds(
    limits: dict[str, int], latency: dict[str, float], by: str | None, seconds: float | None
) -> None:
    endpoints = {"teacher.engine": ENDPOINT.model_copy(update=limits)}
    (found,) = wall_times([line(), line(place=None)], endpoints, latency)
    assert isinstance(found, PacedTime)
    assert (found.bound_by, found.seconds) == (by, seconds)
    assert list(wall_times([line(held=1000)], endpoints, latency)) == []


def test_batches_cost_their_share_and_take_their_window() -> None:
    price = PriceSection(input=2.0, output=10.0, batch=0.5)
    batch = BatchSection(max_requests=300)
    engine = OpenAIEngine(base_url="http://h/v1", mode="batch", price=price, batch=batch)
    priced = line().priced(engine)
    assert (priced.usd, priced.most_usd) == pytest.approx((1.5, 5.5))
    (found,) = wall_times([line()], {"teacher.engine": engine}, {})
    assert isinstance(found, BatchTime)
    assert (found.batches, found.window) == (4, "24h")


# -- which answers --------------------------------------------------------------------------------------


def of(n: int, split: str) -> list[Example]:
    return [Example(f"{split}{i}", f"{split} {i}", ("target", "other")) for i in range(n)]


DATA = Prepared(of(5, "sft"), of(10, "distill"), of(4, "validation"), of(6, "test"), {})


def config(**changes: Any) -> Config:
    made: dict[str, Any] = {
        "run": {"dir": "x"},
        "data": {"train": "t", "validation": "v", "test": "e"},
        "teacher": {"model": "big", "engine": {"type": "openai", "base_url": "http://h/v1"}},
        "student": {"model": "small"},
        **changes,
    }
    return Config.model_validate_json(json.dumps(made))


def counts(made: Config) -> dict[tuple[str, str, str], int]:
    found: dict[tuple[str, str, str], int] = {}
    for a in answer_requests(made, DATA):
        key = (a.stage, a.system, a.split)
        found[key] = found.get(key, 0) + len(a.rows) * a.samples
    return found


def test_answers_are_those_of_the_stages() -> None:
    made = config(generate={"samples": 2, "student_samples": 3}, evaluate={"limit": 5, "baselines": ["seqkd"]})
    assert counts(made) == {
        ("generate", "student_sft", "distill"): 30,
        ("generate", "teacher", "distill"): 20,
        ("distill", "validation", "validation"): 4 * 5,
        ("baselines", "validation", "validation"): 4 * 5,
        ("evaluate", "teacher", "test"): 5,
        ("evaluate", "student_sft", "test"): 5,
        ("evaluate", "student", "test"): 5,
        ("evaluate", "seqkd", "test"): 5,
        ("evaluate", "student_sft", "calibration"): 10,
    }


def test_rounds_ask_the_student_again_and_let_both_meet() -> None:
    found = counts(config(distill={"rounds": 3}, evaluate={"calibration": None}))
    assert found["distill", "student_round_1", "distill"] == found["distill", "student_round_2", "distill"] == 10
    assert ("distill", "student_round_3", "distill") not in found
    assert found["distill", "teacher", "validation"] == found["distill", "student_round_3", "validation"] == 4
    assert found["distill", "validation", "validation"] == 3 * 4 * 5


def test_verdicts_are_those_of_every_llm_judge() -> None:
    llm = {"type": "llm", "model": "j", "base_url": "http://h/v1"}
    made = config(
        generate={"samples": 2},
        evaluate={"judges": [llm, {"type": "reference"}]},
        pairs={"scorer": llm, "real_share": 0.5},
    )
    found = [(j.stage, j.split, j.place, len(j.rows) * j.each) for j in verdict_requests(made, DATA)]
    assert found == [
        ("pair", "distill", "pairs.scorer", 5 * 2 * 2),
        ("distill", "validation", "evaluate.judges.0", 4 * 5),
        ("evaluate", "test", "evaluate.judges.0", 6 * 3),
        ("evaluate", "distill", "evaluate.judges.0", 10 * 2 * 2),
    ]


# -- memory ---------------------------------------------------------------------------------------------

WIDE: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 128, "n_head": 4},
    "gpt_neox": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4},
}


@pytest.mark.parametrize("family", WIDE)
def test_memory_is_that_of_the_model(tmp_path: Path, family: str) -> None:
    """Weights to the byte; what autograd keeps for one group is at most what is planned, and not far below."""
    folder = tiny_folder(tmp_path / "m", family, layers=6, **WIDE[family])
    policy = load_policy(ModelSection(model=str(folder)))
    model = read_model(folder)
    parameters = list(policy.model.parameters())
    assert (model.weights, model.layers) == (sum(p.numel() for p in parameters), 6)
    lora = LoraSection(r=4)
    planned = need(model, TrainSettings(), None, longest=160, completions=60, gpu=False, half=False)
    assert planned.weights == planned.gradients == planned.optimizer // 2 == 4 * model.weights
    kept: dict[int, int] = {}
    holding: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        holding.append(tensor)
        return tensor

    group = Group("a", (7,) * 100, ((8,) * 30, (9,) * 30), 1)
    policy.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), plan_attention(policy.model):
        loss = score(policy.model, [group]).sums().sum()
    own = {p.untyped_storage().data_ptr() for p in parameters}
    measured = sum(n for place, n in kept.items() if place not in own)
    logits_gradient = 4 * 60 * model.vocabulary
    assert 0.6 < measured / (planned.activations - logits_gradient) < 1.05
    del loss
    trained = sum(p.numel() for p in attach(policy, lora).model.parameters() if p.requires_grad)
    assert trained_weights(model, lora, TrainSettings()) == trained


def test_a_pruned_student_has_fewer_weights_and_frozen_embeddings_need_no_gradient(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", layers=4)
    whole, pruned = read_model(folder), read_model(folder, PruneInit(layers=1))
    assert (pruned.layers, pruned.weights) == (1, whole.weights - 3 * (whole.weights - pruned.weights) // 3)
    assert pruned.weights == read_model(tiny_folder(tmp_path / "one", layers=1)).weights
    frozen = TrainSettings(freeze_embeddings=True)
    assert trained_weights(whole, None, frozen) == whole.weights - whole.embeddings < whole.weights
    long = {"longest": 100, "completions": 50, "half": False}
    at_least = need(whole, TrainSettings(max_tokens=64), None, gpu=False, **long)
    assert at_least.tokens == 100, "a group is never cut"
    assert need(whole, TrainSettings(), None, gpu=True, **long).tokens == 16_384
    assert need(whole, TrainSettings(), None, gpu=False, **{**long, "half": True}).activations * 2 == (
        need(whole, TrainSettings(), None, gpu=False, **long).activations
    )


# -- against a run --------------------------------------------------------------------------------------

TOKENIZER = train_tokenizer(chat_template=CHATML)


def teach(call_: Call) -> Response:
    """A server that counts its tokens; its answers have six words."""
    text = " ".join(call_.prompt.split()[:6])
    prompt = TOKENIZER.apply_chat_template(call_.body["messages"], add_generation_prompt=True, return_dict=False)
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(TOKENIZER.encode(text)) + 1}
    return answer(text, usage=usage)


def write(folder: Path, url: str, **changes: Any) -> Path:
    path = write_task(folder, sft__epochs=1, distill__validation={"evaluations": 0}, **changes)
    made = yaml.safe_load(path.read_text())
    TOKENIZER.save_pretrained(folder / "tokenizer")
    engine = {"type": "openai", "base_url": url, "tokenizer": "tokenizer", "context": 4000, "rpm": 60_000}
    made["teacher"] = {"model": "big", "engine": {**engine, "price": {"input": 1000.0, "output": 2000.0}}}
    path.write_text(yaml.safe_dump(made))
    return path


def by_system(found: dict[str, Any]) -> dict[str, list[int]]:
    """Prompt tokens, expected and most completion tokens, answers still to get, by system."""
    names = ("prompt_tokens", "completion_tokens", "most_completion_tokens", "new")
    systems = {entry["system"] for entry in found["lines"]}
    return {s: [sum(e[name] for e in found["lines"] if e["system"] == s) for name in names] for s in systems}


def test_a_plan_is_what_the_run_then_uses_and_asks_nobody(tmp_path: Path) -> None:
    with serve(teach) as server:
        path = write(tmp_path, server.url, generate__max_new_tokens=40)

        def plan() -> dict[str, Any]:
            code, out, err = call("plan", path, "budget.usd=1")
            assert code == 0, err
            assert max(map(len, out.splitlines())) <= 80
            code, out, err = call("plan", path, "--json", "budget.usd=1")
            assert code == 0, err
            return json.loads(out)

        before = plan()
        assert (server.calls, (tmp_path / "run").exists()) == ([], False)
        assert before["prompts"] == {"sft": 12, "distill": 12, "validation": 4, "test": 6}
        assert call("run", path, "--to", "generate")[0] == 0
        sent = len(server.calls)
        half = plan()
        assert half["done"] == ["data", "sft", "generate"]
        assert [e["new"] for e in half["lines"] if e["system"] == "teacher"] == [0, 6]
        assert half["spent"]["usd"] > 0
        assert call("run", path)[0] == 0
        after = plan()
        assert sent == 12
        assert len(server.calls) == 18
    used = {s["system"]: s for s in json.loads(call("ledger", tmp_path / "run", "--json")[1])["systems"]}
    for system, (prompt, expected, most, answers) in by_system(before).items():
        assert prompt == used[system]["prompt_tokens"], "prompts are counted, not guessed"
        assert used[system]["completion_tokens"] <= most
        assert answers == used[system]["answers"]
        assert 0 < expected <= most
    assert before["usd"]["expected"] <= before["usd"]["most"]
    assert used["teacher"]["usd"] <= before["usd"]["most"]
    assert used["teacher"]["usd"] == pytest.approx(
        (1000 * used["teacher"]["prompt_tokens"] + 2000 * used["teacher"]["completion_tokens"]) / 1e6
    )
    assert {e["basis"] for e in half["lines"] if e["system"] == "teacher"} == {"the ledger"}
    left = half["usd"]["expected"] + half["spent"]["usd"]
    assert left == pytest.approx(used["teacher"]["usd"], rel=0.15), (
        "with the ledger's lengths, six answers from the end"
    )
    assert [e["new"] for e in after["lines"]] == [0] * len(after["lines"])
    assert (after["usd"], after["time"]) == ({"expected": 0.0, "most": 0.0}, [])
    stages = json.loads((tmp_path / "run/manifest.json").read_text())["stages"]
    assert before["memory"][0]["stage"] == "sft/student"
    assert stages["sft"]["counts"]["student"]["peak_memory"] > before["memory"][0]["total"]
    assert before["disk"]["distill"] <= sum(f.stat().st_size for f in (tmp_path / "run/student").iterdir())
    ledger = (tmp_path / "run/generations.sqlite").stat().st_size
    assert 0.5 < before["disk"]["ledger"] / ledger < 2


def test_it_says_where_the_budget_ends_and_what_has_no_price(tmp_path: Path) -> None:
    with serve(lambda _: error(500)) as server:
        path = write(tmp_path, server.url)
        code, out, err = call("plan", path, "budget.usd=0.2")
        assert code == 0, err
        assert "budget (usd 0.2): as expected, budget.usd stops the run in generate, after about" in " ".join(
            out.split()
        )
        code, out, _ = call("plan", path, "budget.usd=1000000")
        assert "budget (usd 1,000,000.0): enough, at worst" in out
        code, out, _ = call("plan", path, "teacher.engine.price=null", "teacher.engine.rpm=null")
        assert "teacher.engine has no price" in out
        assert "not known before the first answers" in " ".join(out.split())
        assert call("plan", path, "data.train=nowhere.jsonl")[0] == 2
        assert server.calls == []


def test_a_student_that_is_not_here_is_estimated_without_torch(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    made = yaml.safe_load(path.read_text())
    made["teacher"] = {"model": "big", "engine": {"type": "openai", "base_url": "http://127.0.0.1:9/v1"}}
    made["student"] = {"model": "nobody/nothing"}
    path.write_text(yaml.safe_dump(made))
    code = (
        "import sys; sys.argv = ['plad', 'plan', sys.argv[1]]\n"
        "from plad.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: print('exit', e.code)\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True, timeout=60).stdout
    assert out.endswith("exit 0\nFalse\n")
    assert "4 bytes a token" in out
    assert "sft/student: nobody/nothing is not on this machine" in " ".join(out.split())
