"""Training reward models: tiny models, made-up preferences, through to their use as a judge."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from plad.config.extras import RewardTraining
from plad.config.file import load_as
from plad.config.pairs import PreferenceColumns
from plad.data.preferences import Preference, read_preferences
from plad.data.rows import BadRowsError
from plad.errors import ConfigError, DataError, PolicyError, RunDirError, TrainingError
from plad.extras.reward.facts import summary
from plad.extras.reward.run import measure, train
from plad.extras.reward.train import Backbone
from plad.judges.base import JudgeResources
from plad.judges.reward import RewardJudge as RewardSection
from plad.records import Example
from tests.support.judges import JUDGE_WORDS, judge_tokenizer
from tests.support.tiny_models import CHATML, tiny_folder, train_tokenizer


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """People prefer what begins with "good"; lengths say nothing."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        tails = [" ".join(["a long answer"] * draw.randint(1, 4)) for _ in range(2)]
        made.append({"prompt": f"what is {i}", "chosen": f"good {tails[0]}", "rejected": f"bad {tails[1]}"})
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def section(folder: Path, **fields: Any) -> RewardTraining:
    given = {
        "out": str(folder / "rm"),
        "data": {"train": str(folder / "pairs.jsonl"), "held_out": 0.2},
        "model": str(folder / "base"),
        "learning_rate": 1e-2,
        "lora": None,
    }
    return RewardTraining.model_validate(given | fields)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A decoder and 60 preferences."""
    tiny_folder(tmp_path / "base")
    write(tmp_path / "pairs.jsonl", rows(60))
    return tmp_path


def test_from_preferences_to_a_judge(task: Path) -> None:
    facts = train(section(task), task)
    held = facts.held_out
    assert facts.data.to_json() == {
        "rows": 60,
        "identical": 0,
        "skipped": 0,
        "ties": 0,
        "prompts_held_out_too": 0,
        "held_out": 12,
    }
    assert (facts.training.pairs, facts.training.steps) == (48, 6)
    assert held.accuracy.value == 1.0
    assert 0.6 < held.accuracy.low < 1.0  # 12 of 12 is no certainty
    assert sum(row.pairs for row in held.reliability) == held.pairs == 12
    judge = RewardSection(model=str(task / "rm")).open(JudgeResources())
    good, bad = judge.score([Example("x", "what is it")] * 2, ["good answer", "bad answer"], [(), ()])
    assert good is not None
    assert bad is not None
    assert good > bad
    assert judge.describe()["input"] == "plain"
    card = (task / "rm" / "README.md").read_text()
    assert "held-out accuracy 100.0 %" in card
    assert "/tmp" not in "\n".join(summary(facts))
    assert not (task / "rm.checkpoints").exists()


def test_the_same_command_again_is_done_and_another_setting_is_refused(task: Path) -> None:
    first = train(section(task, epochs=0.3), task)
    assert train(section(task, epochs=0.3), task) == first
    with pytest.raises(RunDirError, match="other settings or data"):
        train(section(task, epochs=0.4), task)
    write(task / "pairs.jsonl", rows(60, seed=1))
    with pytest.raises(RunDirError, match="other settings or data"):
        train(section(task, epochs=0.3), task)


def test_a_folder_of_something_else_is_left_alone(task: Path) -> None:
    (task / "rm").mkdir()
    (task / "rm" / "diary.txt").write_text("dear diary")
    with pytest.raises(RunDirError, match="holds no reward model"):
        train(section(task), task)


def test_stopped_and_continued_is_the_same_as_straight(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = section(task, out=str(task / "straight"), lora={"r": 4})
    train(straight, task)
    stopped = section(task, checkpoint_steps=2, lora={"r": 4})
    from plad.extras.reward import train as module

    taken = module._Bar.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        taken(self, args, state, control, **more)
        if state.global_step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module._Bar, "on_step_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, task)
    assert not (task / "rm").exists()
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="other settings or data"):
        train(section(task, checkpoint_steps=2, lora={"r": 4}, seed=1), task)
    assert train(stopped, task).training.steps == 6
    ours, theirs = (load_file(task / name / "model.safetensors") for name in ("rm", "straight"))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=0)


def test_an_encoder_learns_through_pairs_of_texts(task: Path) -> None:
    """LoRA on BERT: in training as in judging the answer has token type 1."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(
        BertConfig(vocab_size=len(JUDGE_WORDS), pad_token_id=0, max_position_embeddings=32, **shape)
    ).save_pretrained(task / "base")
    judge_tokenizer(pad_token="[PAD]").save_pretrained(task / "base")
    asked = section(task, lora={"r": 8, "alpha": 32, "dropout": 0.0}, learning_rate=3e-2, epochs=3)
    encoded, _ = Backbone(asked, asked.model).rows([Preference("a", "what is", "good", "bad")])
    assert encoded[0]["chosen"]["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    facts = train(asked, task)
    assert facts.held_out.accuracy.value > 0.9
    assert facts.judge.to_json() == {"input": "pair", "max_length": 32}


def test_a_chat_model_learns_through_its_template(task: Path) -> None:
    tiny_folder(task / "base", tokenizer=train_tokenizer(chat_template=CHATML, eos_token="<|im_end|>"))
    talk = [{**r, "prompt": [{"role": "user", "content": r["prompt"]}]} for r in rows(40)]
    write(task / "pairs.jsonl", talk)
    facts = train(section(task, epochs=2), task)
    assert facts.judge.input == "chat"
    assert facts.held_out.accuracy.value > 0.9


def test_what_is_left_out_is_counted(task: Path) -> None:
    made = rows(30)
    made[3] |= {"tie": True}
    made[4] |= {"rejected": made[4]["chosen"]}
    made[5] |= {"chosen": "good " * 300}
    write(task / "pairs.jsonl", made)
    write(task / "held.jsonl", [made[0], *rows(3, seed=5)[2:]])
    data = {"train": str(task / "pairs.jsonl"), "validation": str(task / "held.jsonl")}
    facts = train(section(task, data=data, epochs=0.1, max_length=100), task)
    assert facts.data.to_json() == {
        "rows": 29,
        "identical": 1,
        "skipped": 0,
        "ties": 1,
        "prompts_held_out_too": 2,  # the first and the third row
        "held_out": 2,
    }
    assert (facts.training.pairs, facts.training.too_long) == (25, 1)
    said = "\n".join(summary(facts))
    assert "left out: 1 with equal answers, 1 ties, 2 with a held-out prompt, 1 too long" in said


def test_nothing_to_train_on_is_said(task: Path) -> None:
    with pytest.raises(DataError, match=r"all \d+ pairs are longer than 3 tokens"):
        train(section(task, max_length=3), task)
    write(task / "pairs.jsonl", rows(1))
    with pytest.raises(DataError, match="0 preferences are left to train on and 1 to measure with"):
        train(section(task), task)


def test_a_loss_that_is_not_finite_stops_training(task: Path) -> None:
    from tests.support.tiny_models import tiny_model

    model = tiny_model(vocab_size=len(train_tokenizer()))
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))  # type: ignore[union-attr]
    model.save_pretrained(task / "base")
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        train(section(task), task)
    assert not (task / "rm").exists()


def test_bad_rows_name_their_place_and_shape(tmp_path: Path) -> None:
    file = write(
        tmp_path / "p.jsonl",
        [
            {"prompt": "P", "chosen": "a", "rejected": "b"},
            {"prompt": "P", "chosen": "a"},
            {"prompt": "P", "chosen": 3, "rejected": "b"},
            {"prompt": "P", "chosen": "a", "rejected": "b", "tie": "no"},
        ],
    )
    with pytest.raises(BadRowsError) as e:
        read_preferences(str(file), PreferenceColumns())
    said = str(e.value)
    for expected in ("p.jsonl:2: no column 'rejected'", "p.jsonl:3: chosen: a number", "p.jsonl:4: tie: 'no'"):
        assert expected in said
    found = read_preferences(str(file), PreferenceColumns(), skip_invalid=True)
    assert (len(found.rows), found.skipped) == (1, 3)
    write(file, [{"prompt": "P", "chosen": "a", "rejected": "a"}])
    with pytest.raises(DataError, match="1 rows have two equal answers"):
        read_preferences(str(file), PreferenceColumns())


def test_held_out_figures_by_hand() -> None:
    """Gaps 2, -1, 0 on two prompts: points (1 + 0) / 2 and 0.5; sigmoid(1) = 0.731 says the wrong one."""

    class Numbers:
        name = "numbers"

        def score(self, examples: Any, texts: Any, references: Any) -> list[float]:
            return [float(t) for t in texts]

        def describe(self) -> dict[str, Any]:
            return {"truncated": 0}

    found = measure(
        Numbers(),
        [Preference("a", "P", "2", "0"), Preference("b", "p ", "0", "1"), Preference("c", "Q", "3", "3")],
        seed=0,
    )
    assert found.accuracy.value == 0.5
    assert (found.accuracy.n, found.pairs, found.ties) == (2, 3, 1)
    assert found.margin == pytest.approx(1 / 3)
    assert [row.value for row in found.reliability] == [0.5, None, 0.0, 1.0, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("out: o\nmodel: m\ndata: {train: p}\nlearning_rte: 1\n", "did you mean learning_rate?"),
        ("out: o\nmodel: m\n", "data: is required"),
        ("out: o\nmodel: m\ndata: {train: p, held_out: 1}\n", "data.held_out: must be below 1"),
    ],
)
def test_its_config_is_checked_like_any_other(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as e:
        load_as(RewardTraining, tmp_path / "c.yaml")
    assert said in str(e.value)


def test_an_adapter_is_no_backbone(task: Path) -> None:
    (task / "base" / "adapter_config.json").write_text("{}")
    with pytest.raises(PolicyError, match="is an adapter"):
        Backbone(section(task), str(task / "base"))
