"""Recipes at full scale, from data to report by the command in their header, with tiny models of the same classes."""

import json
import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from plad.config.file import load_config
from plad.config.root import Config
from plad.remote.openai import OpenAIEngine
from tests.support.command import call
from tests.support.judges import judge_tokenizer
from tests.support.servers.scripted import Call, Response, answer, serve
from tests.support.task import STAGES
from tests.support.tiny_models import CHATML, WORDS, word_model_folder

pytestmark = pytest.mark.usefixtures("quick_collections")
ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for folder in ("paper", "pairs") for path in (ROOT / "recipes" / folder).glob("*.yaml"))
WHOLE = "llama2-13b-7b-tldr"
"""The recipe whose baselines are trained too; the others list the same."""

FAMILIES = {
    "meta-llama/Llama-2-13b-hf": "llama",
    "meta-llama/Llama-2-7b-hf": "llama",
    "EleutherAI/gpt-neo-2.7B": "gpt_neo",
    "EleutherAI/gpt-neo-1.3B": "gpt_neo",
    "google/flan-t5-xxl": "flan_t5",
    "google/flan-t5-large": "flan_t5",
    "Qwen/Qwen3-4B-Base": "qwen3",
    "Qwen/Qwen3-0.6B-Base": "qwen3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
    "meta-llama/Llama-3.2-1B-Instruct": "llama",
    "google/gemma-3-1b-pt": "gemma3",
    "google/gemma-3-270m": "gemma3",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "llama",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "llama",
}
"""The class of each model, as the tiny ones are named."""

CHATS = {name for name in FAMILIES if name.endswith("Instruct")}
JUDGE = "OpenAssistant/reward-model-deberta-v3-large-v2"
JUDGE_NAME = JUDGE.rpartition("/")[2]
ROWS = {"train": 20, "validation": 2, "test": 3}


def words(draw: random.Random, n: int) -> str:
    return " ".join(draw.choices(WORDS, k=n))


def tldr(draw: random.Random, name: str) -> dict[str, str]:
    """A row of trl-lib/tldr."""
    post = f"SUBREDDIT: r/{words(draw, 1)}\n\nTITLE: {name}\n\nPOST: {words(draw, 6)}\n\nTL;DR:"
    return {"prompt": post, "completion": f" {words(draw, 2)}"}


def hh(draw: random.Random, name: str) -> dict[str, str]:
    """A row of Anthropic/hh-rlhf: two dialogues that differ in the last answer."""
    before = (
        f"\n\nHuman: {name} {words(draw, 3)}\n\nAssistant: {words(draw, 2)}\n\nHuman: {words(draw, 3)}\n\nAssistant:"
    )
    return {"chosen": f"{before} {words(draw, 2)}", "rejected": f"{before} {words(draw, 3)}"}


SOURCES = {
    **{f"trl-lib/tldr:{split}": (tldr, split) for split in ROWS},
    "Anthropic/hh-rlhf/helpful-base:train[:95%]": (hh, "train"),
    "Anthropic/hh-rlhf/helpful-base:train[95%:]": (hh, "validation"),
    "Anthropic/hh-rlhf/helpful-base:test": (hh, "test"),
}
"""What the hub has, and what stands for it."""


def write_rows(folder: Path, cfg: Config) -> dict[str, str]:
    """The three files; HH's train holds a dialogue without an answer, as the hub's does."""
    draw, written = random.Random(1), {}
    for name, n in ROWS.items():
        make, split = SOURCES[getattr(cfg.data, name)]
        assert split == name
        rows = [make(draw, f"{name} {i}") for i in range(n)]
        if make is hh and name == "train":
            rows[0]["chosen"] = rows[0]["chosen"].rpartition(" ")[0] + "\n\nHuman: cat"
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        written[f"data.{name}"] = str(file)
    return written


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reward model of the class of the paper's."""
    folder = tmp_path_factory.mktemp("judge") / JUDGE_NAME
    tokenizer = judge_tokenizer(pad_token="[PAD]")
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        num_labels=1,
    )
    model = DebertaV2ForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def teacher_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers a dialogue with some of its words."""
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")

    def script(call_: Call) -> Response:
        draw = random.Random(call_.raw)
        return answer(words(draw, 3))

    with serve(script) as server:
        yield server.url


def swapped(folder: Path, cfg: Config, judge: Path, url: str) -> dict[str, Any]:
    """What takes the place of models and data."""
    changes: dict[str, Any] = write_rows(folder, cfg)
    for seed, role in enumerate(("teacher", "student")):
        section = getattr(cfg, role)
        if role == "teacher" and isinstance(cfg.teacher.engine, OpenAIEngine):
            changes["teacher.engine.base_url"] = url
            continue
        chat = CHATML if section.model in CHATS else None
        made = word_model_folder(folder / role, FAMILIES[section.model], seed=seed, chat_template=chat)
        changes[f"{role}.model"] = made
    assert [j.model for j in cfg.evaluate.judges if j.type == "reward"] == [JUDGE]
    return {**changes, "evaluate.judges.0.model": judge, "evaluate.judges.0.revision": "null"}


SMALLER = {
    "sft.validation.evaluations": 1,
    "distill.validation.evaluations": 1,
    "generate.max_new_tokens": 12,
    "evaluate.bootstrap": 50,
}


def commands(recipe: Path) -> list[list[str]]:
    """The arguments of the commands in a recipe's header, without the words of explanation behind them."""
    name = str(recipe.relative_to(ROOT))
    lines = [line for line in recipe.read_text().splitlines() if f"plad run {name}" in line]
    return [shlex.split(line.partition(name)[2].split("      ")[0]) for line in lines]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_from_data_to_report(recipe: Path, tmp_path: Path, judge: Path, teacher_url: str) -> None:
    cfg = load_config(recipe)
    options = commands(recipe)[0]
    changes = {**swapped(tmp_path, cfg, judge, teacher_url), **SMALLER, "run.dir": tmp_path / "run"}
    if recipe.stem != WHOLE:
        changes["evaluate.baselines"] = "[]"

    code, out, err = call("run", recipe, *options, *(f"{name}={value}" for name, value in changes.items()))

    assert code == 0, out + err
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert list(manifest["stages"]) == STAGES
    skipped = manifest["stages"]["data"]["counts"]["skipped"]["train"]
    assert skipped == (1 if "--skip-invalid" in options else 0)
    assert (tmp_path / "run/report/index.html").stat().st_size > 10_000
    systems = json.loads((tmp_path / "run/eval/metrics.json").read_text())["systems"]
    assert systems["student"]["win_rate"][JUDGE_NAME]["n"] == ROWS["test"], systems["student"]
    if recipe.stem == WHOLE:
        assert {"seqkd", "kd", "f_distill-js", "minillm"} <= set(systems)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_header_says_what_it_is_what_it_needs_and_how_it_is_run(recipe: Path) -> None:
    header = recipe.read_text().partition("\nrun:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert [name for name in ("Reproduces:", "Needs:", "Run:", "Watch:") if f"\n# {name} " not in header] == []
    for options in commands(recipe):
        load_config(recipe, [option for option in options if "=" in option])


def test_all_recipes_of_one_kind_train_the_same_baselines() -> None:
    """So that one of them may stand for all."""
    assert len({load_config(recipe).evaluate.baselines for recipe in RECIPES} - {()}) == 1
