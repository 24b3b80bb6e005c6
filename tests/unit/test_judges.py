"""The reward-model judge on tiny models, and the loading of judges."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    T5Config,
    T5Model,
)

from plad.errors import ConfigError, PolicyError
from plad.judges.base import JudgeResources, open_judges
from plad.judges.embedding import EmbeddingJudge as EmbeddingSection
from plad.judges.encode import flatten
from plad.judges.reference import ReferenceJudge as ReferenceSection
from plad.judges.reward import RewardJudge as RewardSection
from plad.records import Example, Message
from tests.support.judges import JUDGE_WORDS, bert, bert_config, judge_tokenizer

CHAT = "{% for m in messages %}{{ m.role }} {{ m.content }} [SEP] {% endfor %}"
EXAMPLES = [Example(f"row-{i}", "what is good") for i in range(4)]
TEXTS = ["good", "a long long long answer", "bad bad", ""]
NONE: list[tuple[str, ...]] = [()] * 4


def section(folder: Path, **fields: object) -> RewardSection:
    return RewardSection.model_validate({"model": str(folder), **fields})


def test_pair_scores_are_the_models_own(tmp_path: Path) -> None:
    model = bert(tmp_path / "rm")
    judge = section(tmp_path / "rm").open(JudgeResources())
    # [CLS] what is good [SEP] a long long long answer [SEP]
    ids = torch.tensor([[1, 6, 7, 4, 2, 8, 9, 9, 9, 10, 2]])
    types = torch.tensor([[0] * 5 + [1] * 6])
    with torch.no_grad():
        expected = model(input_ids=ids, token_type_ids=types).logits.item()
    assert judge.score(EXAMPLES, TEXTS, NONE)[1] == pytest.approx(expected, abs=1e-5)
    assert judge.name == "rm"


@pytest.mark.parametrize("batch_size", [2, 4])
def test_batching_by_length_changes_no_score_and_no_order(tmp_path: Path, batch_size: int) -> None:
    bert(tmp_path / "rm")
    alone = section(tmp_path / "rm", batch_size=1).open(JudgeResources()).score(EXAMPLES, TEXTS, NONE)
    together = section(tmp_path / "rm", batch_size=batch_size).open(JudgeResources()).score(EXAMPLES, TEXTS, NONE)
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == len(alone)


@pytest.mark.parametrize(("token", "pad"), [({}, None), ({"pad_token": "[PAD]"}, None), ({"pad_token": "[PAD]"}, 0)])
def test_decoder_with_or_without_padding_through_its_chat_template(
    tmp_path: Path, token: dict[str, str], pad: int | None
) -> None:
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(JUDGE_WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            pad_token_id=pad,
            id2label={0: "reward"},
        )
    ).eval()
    torch.nn.init.normal_(model.score.weight, std=3.0)
    model.save_pretrained(tmp_path / "rm")
    tok = judge_tokenizer(**token)
    tok.chat_template = CHAT
    tok.save_pretrained(tmp_path / "rm")
    judge = section(tmp_path / "rm", input="chat").open(JudgeResources())
    with torch.no_grad():  # user what is good [SEP] assistant good [SEP]
        expected = model(input_ids=torch.tensor([[11, 6, 7, 4, 2, 12, 4, 2]])).logits.item()
    scores = judge.score(EXAMPLES, TEXTS, NONE)
    assert scores[0] == pytest.approx(expected, abs=1e-5)
    assert [judge.score([e], [t], [()])[0] for e, t in zip(EXAMPLES, TEXTS, strict=True)] == pytest.approx(scores)


def test_truncation_is_counted(tmp_path: Path) -> None:
    bert(tmp_path / "rm")
    judge = section(tmp_path / "rm", max_length=10).open(JudgeResources())
    judge.score(EXAMPLES, ["good", "bad " * 40, "a a a a", "a a a a a"], NONE)  # 3 + 3 special + 1, 40, 4, 5 tokens
    facts = judge.describe()
    assert (facts["scored"], facts["truncated"], facts["max_length"]) == (4, 2, 10)


def test_the_models_context_is_the_default_limit(tmp_path: Path) -> None:
    bert(tmp_path / "rm")
    judge = section(tmp_path / "rm", max_length=500).open(JudgeResources())
    judge.score(EXAMPLES[:1], ["bad " * 100], [()])
    assert (judge.describe()["max_length"], judge.describe()["truncated"]) == (32, 1)


def test_a_cut_chat_keeps_the_answer(tmp_path: Path) -> None:
    bert(tmp_path / "rm")
    tok = judge_tokenizer(pad_token="[PAD]")
    tok.chat_template = CHAT
    tok.save_pretrained(tmp_path / "rm")
    judge = section(tmp_path / "rm", input="chat", max_length=4).open(JudgeResources())
    long, short = Example("x", "bad " * 20), Example("y", "what is a long answer")
    scores = judge.score([long, short], ["good", "good"], [(), ()])  # both end in: [SEP] assistant good [SEP]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert judge.describe()["truncated"] == 2


def test_nan_names_the_row(tmp_path: Path) -> None:
    model = bert(tmp_path / "rm")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[5] = float("nan")  # the word "bad"
    model.save_pretrained(tmp_path / "rm")
    with pytest.raises(PolicyError, match="row row-2: the reward model rm gave nan"):
        section(tmp_path / "rm", batch_size=1).open(JudgeResources()).score(EXAMPLES, TEXTS, NONE)


def test_two_outputs_are_refused_before_the_weights_load(tmp_path: Path) -> None:
    bert_config(2).save_pretrained(tmp_path / "rm")
    judge_tokenizer(pad_token="[PAD]").save_pretrained(tmp_path / "rm")
    with pytest.raises(PolicyError, match="has one output, this one has 2"):
        section(tmp_path / "rm").open(JudgeResources())


def test_an_untrained_head_is_refused(tmp_path: Path) -> None:
    BertModel(bert_config()).save_pretrained(tmp_path / "rm")
    judge_tokenizer(pad_token="[PAD]").save_pretrained(tmp_path / "rm")
    with pytest.raises(PolicyError, match=r"no trained weights for classifier\.bias"):
        section(tmp_path / "rm").open(JudgeResources())


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = bert(tmp_path / "rm")
    (tmp_path / "rm" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "rm" / "pytorch_model.bin")
    with pytest.raises(PolicyError, match="only safetensors are read"):
        section(tmp_path / "rm").open(JudgeResources())


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"reward model .*nothing: can't load the model"):
        section(tmp_path / "nothing").open(JudgeResources())


def test_chat_without_a_template_is_refused(tmp_path: Path) -> None:
    bert(tmp_path / "rm")
    with pytest.raises(ConfigError, match="no chat template"):
        section(tmp_path / "rm", input="chat").open(JudgeResources())


def test_a_bfloat16_models_scores_are_not_rounded_to_ties(tmp_path: Path) -> None:
    """bfloat16 keeps 8 bits: the head's output is computed in float32, so near scores stay apart."""
    model = bert(tmp_path / "rm")
    with torch.no_grad():
        model.classifier.weight /= 1000
        model.classifier.bias.fill_(1.0)  # scores near 1, where bfloat16 has steps of 1/128
    model.save_pretrained(tmp_path / "rm")
    rounded = section(tmp_path / "rm", dtype="bfloat16").open(JudgeResources()).score(EXAMPLES, TEXTS, NONE)
    exact = section(tmp_path / "rm", dtype="float32").open(JudgeResources()).score(EXAMPLES, TEXTS, NONE)
    assert len(set(rounded)) == len(rounded)
    assert rounded == pytest.approx(exact, abs=2e-3)


def embedding(folder: Path, **fields: object) -> EmbeddingSection:
    return EmbeddingSection.model_validate({"model": str(folder), **fields})


def encoder(folder: Path) -> BertModel:
    torch.manual_seed(0)
    model = BertModel(bert_config(), add_pooling_layer=False)
    model.save_pretrained(folder)
    judge_tokenizer(pad_token="[PAD]").save_pretrained(folder)
    return model.eval()


def test_embedding_scores_are_cosines_of_mean_states_with_the_nearest_reference(tmp_path: Path) -> None:
    model = encoder(tmp_path / "enc")

    def unit(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        return mean / mean.norm()

    judge = embedding(tmp_path / "enc").open(JudgeResources())
    references = [("good", "bad bad bad"), ("good",), (), ("a",)]
    scores = judge.score(EXAMPLES, ["bad", "good", "good", ""], references)
    bad, good = unit([1, 5, 2]), unit([1, 4, 2])
    assert scores[0] == pytest.approx(max(float(bad @ good), float(bad @ unit([1, 5, 5, 5, 2]))), abs=1e-5)
    assert scores[1] == pytest.approx(1.0, abs=1e-6)
    assert scores[2] is None
    assert scores[3] is not None
    assert judge.name == "enc"
    assert judge.describe()["scored"] == 3


def test_batches_and_cuts_of_the_embedding_judge(tmp_path: Path) -> None:
    encoder(tmp_path / "enc")
    references = [("good", "what is a long answer")] * 4
    one = embedding(tmp_path / "enc", batch_size=1).open(JudgeResources()).score(EXAMPLES, TEXTS, references)
    four = embedding(tmp_path / "enc", batch_size=4).open(JudgeResources()).score(EXAMPLES, TEXTS, references)
    assert four == pytest.approx(one, abs=1e-5)
    short = embedding(tmp_path / "enc", max_length=4).open(JudgeResources())
    assert short.score(EXAMPLES[:1], ["good bad good good"], [("good bad",)]) == pytest.approx([1.0], abs=1e-6)
    assert (short.describe()["truncated"], short.describe()["max_length"]) == (1, 4)
    prefixed = embedding(tmp_path / "enc", prefix="what is ").open(JudgeResources())
    assert prefixed.score(EXAMPLES[:1], ["good"], [("bad",)]) != pytest.approx(one[:1], abs=1e-6)


def test_an_encoder_decoder_embeds_with_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": len(JUDGE_WORDS)}
    T5Model(T5Config(**shape, decoder_start_token_id=0, pad_token_id=0)).save_pretrained(tmp_path / "t5")
    judge_tokenizer(pad_token="[PAD]", model_inputs=["input_ids", "attention_mask"]).save_pretrained(tmp_path / "t5")
    judge = embedding(tmp_path / "t5").open(JudgeResources())
    assert judge.score(EXAMPLES[:2], ["good", "bad"], [("good",), ("good",)])[0] == pytest.approx(1.0, abs=1e-6)


def test_states_that_are_not_finite_name_the_row(tmp_path: Path) -> None:
    model = encoder(tmp_path / "enc")
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[5] = float("nan")  # the word "bad"
    model.save_pretrained(tmp_path / "enc")
    with pytest.raises(PolicyError, match="row row-2: the states of enc are not finite"):
        embedding(tmp_path / "enc", batch_size=1).open(JudgeResources()).score(EXAMPLES, TEXTS, [("good",)] * 4)


def test_weights_missing_from_an_encoder_are_named(tmp_path: Path) -> None:
    encoder(tmp_path / "enc")
    weights = load_file(tmp_path / "enc" / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, tmp_path / "enc" / "model.safetensors")
    with pytest.raises(PolicyError, match=r"no trained weights for encoder\.layer\.1"):
        embedding(tmp_path / "enc").open(JudgeResources())


def test_conversations_become_one_text_for_a_pair() -> None:
    assert flatten("plain") == "plain"
    assert flatten(({"role": "user", "content": "Q"},)) == "Q"
    assert flatten(({"role": "system", "content": "S"}, {"role": "user", "content": "Q"})) == "S\n\nQ"
    turns = tuple(Message(role=r, content=c) for r, c in [("user", "A"), ("assistant", "B"), ("user", "C")])
    assert flatten(turns) == "User: A\n\nAssistant: B\n\nUser: C"


def test_judges_of_a_config_have_different_names(tmp_path: Path) -> None:
    bert(tmp_path / "x" / "rm")
    rm = section(tmp_path / "x" / "rm")
    judges = open_judges([ReferenceSection(), rm, section(tmp_path / "x" / "rm", batch_size=1), rm], JudgeResources())
    assert [j.name for j in judges] == ["reference", "rm", "rm-2", "rm-3"]
