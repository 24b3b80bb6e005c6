"""Exported pairs: another trainer sees the tokens of training, by TRL's own code and by what the others document."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from datasets import Dataset
from transformers import AutoTokenizer
from trl.trainer.dpo_trainer import DPOTrainer

from plad.config.models import PromptSection
from plad.data.formats import SIDES, write_pairs_parquet
from plad.extras.export.pairs import same_tokens
from plad.policy.load import Policy, save_policy
from plad.records import Pair, Prompt
from plad.rundir.atomic import atomic_dir
from plad.rundir.directory import open_run
from tests.support.command import call
from tests.support.tiny_models import BOS_CHATML, CHATML, tiny_policy, train_tokenizer

TALK: Prompt = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
)
FORMATS: dict[str, dict[str, Any]] = {
    "plain": {"format": "plain", "separator": " "},
    "template": {"template": 'Q: "{prompt}"\nA:', "separator": " "},
    "control": {"template": "<s><|im_start|>{prompt}<|im_end|>"},
    "chat": {"format": "chat"},
    "system": {"format": "chat", "system": "Be brief."},
}


def finished(path: Path, fields: dict[str, Any], *, talk: bool = False, bos: bool = True) -> tuple[Policy, list[Pair]]:
    """A run with pairs and a student of a prompt format, which is told as its config tells it."""
    chat = BOS_CHATML if bos else CHATML
    tokenizer = train_tokenizer(chat_template=chat, adds_bos=bos, eos_token="<|im_end|>")
    policy = tiny_policy(tokenizer=tokenizer, prompt=PromptSection(**fields))
    prompts: list[Prompt] = [TALK, TALK[1:]] if talk else ["Why is it so?", 'An {odd} "one"\\n\n']
    pairs = [Pair(f"e{i}#0-0", p, "It is so.", "It isn't?", "teacher", "student_sft") for i, p in enumerate(prompts)]
    with open_run(path) as run:
        write_pairs_parquet(run / "pairs.parquet", pairs)
        (run / "config.resolved.json").write_text(json.dumps({"student": {"prompt": fields}}))
    with atomic_dir(path / "student") as folder:
        save_policy(policy, folder)
    return policy, pairs


def exported(path: Path, to: str) -> tuple[list[dict[str, Any]], str]:
    code, out, err = call("export", path, "--to", to, "--out", path / "out.json")
    assert (code, err) == (0, ""), err
    text = (path / "out.json").read_text()
    return json.loads(text) if to == "llamafactory" else [json.loads(line) for line in text.splitlines()], out


def seen_by_trl(rows: list[dict[str, Any]], folder: Path) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompt, chosen and rejected ids as TRL's trainer makes them of its rows."""
    trainer, tokenizer = object.__new__(DPOTrainer), AutoTokenizer.from_pretrained(folder)
    trainer._tokenizer = tokenizer
    settings: Any = SimpleNamespace(dataset_num_proc=None, max_length=None)
    made: Any = trainer._prepare_dataset(Dataset.from_list(rows), tokenizer, settings, "train")
    return [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in made]


def ours(policy: Policy, pair: Pair) -> tuple[list[int], list[int], list[int]]:
    chosen, rejected = (policy.prompt.encode_completion(getattr(pair, side)) for side in SIDES)
    return policy.prompt.encode_prompt(pair.prompt), chosen, rejected


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("kind", ["plain", "template", "control"])
def test_trl_sees_the_tokens_of_training(tmp_path: Path, kind: str, bos: bool) -> None:
    policy, pairs = finished(tmp_path, FORMATS[kind], bos=bos)
    rows, _ = exported(tmp_path, "trl")
    assert seen_by_trl(rows, tmp_path / "student") == [ours(policy, pair) for pair in pairs]


@pytest.mark.parametrize(("kind", "talk"), [("chat", False), ("chat", True), ("system", False)])
def test_trl_sees_messages_and_after_the_end_token_only_what_the_template_writes(
    tmp_path: Path, kind: str, talk: bool
) -> None:
    policy, pairs = finished(tmp_path, FORMATS[kind], talk=talk)
    rows, _ = exported(tmp_path, "trl")
    assert rows[0]["prompt"][0]["role"] == ("user" if (kind, talk) == ("chat", False) else "system")
    newline = policy.tokenizer.encode("\n", add_special_tokens=False)
    for found, pair in zip(seen_by_trl(rows, tmp_path / "student"), pairs, strict=True):
        prompt, chosen, rejected = ours(policy, pair)
        assert found == (prompt, chosen + newline, rejected + newline)


@pytest.mark.parametrize("kind", ["plain", "template", "control"])
def test_axolotl_gives_trl_the_same_texts(tmp_path: Path, kind: str) -> None:
    """Its `user_defined` rows: `prompt_format.format(prompt=...)`, then its DPO trainer is TRL's."""
    policy, pairs = finished(tmp_path, FORMATS[kind])
    rows, out = exported(tmp_path, "axolotl")
    (dataset,) = yaml.safe_load(out.partition("YAML:\n")[2])["datasets"]
    fields = dataset["type"]
    texts = [
        {name: fields[f"{name}_format"].format(**{name: row[fields[f"field_{name}"]]}) for name in ("prompt", *SIDES)}
        for row in rows
    ]
    assert seen_by_trl(texts, tmp_path / "student") == [ours(policy, pair) for pair in pairs]


def test_axolotl_renders_messages_with_the_students_template(tmp_path: Path) -> None:
    """Its `chat_template.default`: the prompt rendered, an answer from its first letter to its end token."""
    policy, pairs = finished(tmp_path, FORMATS["system"])
    rows, out = exported(tmp_path, "axolotl")
    (dataset,) = yaml.safe_load(out.partition("YAML:\n")[2])["datasets"]
    assert dataset["type"] == "chat_template.default"
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "student")
    for row, pair in zip(rows, pairs, strict=True):
        messages = row[dataset["field_messages"]]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        chosen = row[dataset["field_chosen"]]
        text = tokenizer.apply_chat_template([{"role": "user", "content": "x"}, chosen], tokenize=False)
        answer = text[text.find(chosen["content"]) :].rstrip()
        ids = tokenizer.encode(answer, add_special_tokens=False)
        assert (prompt, ids) == ours(policy, pair)[:2]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(("kind", "talk"), [(kind, False) for kind in FORMATS] + [("chat", True), ("template", True)])
def test_llamafactory_sees_the_tokens_of_training(tmp_path: Path, kind: str, talk: bool, bos: bool) -> None:
    """Its template `empty` cuts the human's and the answer's text apart and adds nothing to them."""
    policy, pairs = finished(tmp_path, FORMATS[kind], talk=talk, bos=bos)
    rows, out = exported(tmp_path, "llamafactory")
    entry = json.loads(out[out.index("{") :])["out"]
    columns = entry["columns"]
    assert (entry["file_name"], entry["ranking"]) == (str(tmp_path / "out.json"), True)
    assert set(columns.values()) == set(rows[0])
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "student")
    for row, pair in zip(rows, pairs, strict=True):
        (human,) = row[columns["messages"]]
        assert human["from"] == "human"
        texts = (human["value"], row[columns["chosen"]]["value"], row[columns["rejected"]]["value"])
        assert tuple(tokenizer.encode(text, add_special_tokens=False) for text in texts) == ours(policy, pair)


def test_pairs_whose_tokens_differ_elsewhere_are_counted(tmp_path: Path) -> None:
    """Cut as one text, prompt and answer merge; the name of a control token is taken for it."""
    tokenizer = train_tokenizer(["aab"] * 50, vocab_size=270)
    prompt = tiny_policy(tokenizer=tokenizer, prompt=PromptSection(format="plain")).prompt
    texts = [("a", "ab"), ("b", "</s>"), ("b", "b")]
    pairs = [Pair(f"e{i}#0-0", p, a, "b", "teacher", "student_sft") for i, (p, a) in enumerate(texts)]
    assert [same_tokens(pair, prompt) for pair in pairs] == [False, False, True]


def test_pairs_have_no_type_of_weights(tmp_path: Path) -> None:
    finished(tmp_path, FORMATS["plain"])
    code, _, err = call("export", tmp_path, "--to", "trl", "--dtype", "bfloat16")
    assert code == 2
    assert "--dtype: pairs hold no weights" in err
