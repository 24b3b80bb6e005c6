"""Encoder-decoder policies: loaded as they were published, prompted as they were trained, refused where it must be."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Tokenizer

from plad.config.models import LoraSection, ModelSection, PromptSection, PruneInit, StudentSection
from plad.errors import PolicyError
from plad.policy.folder import check_policy
from plad.policy.load import (
    Policy,
    attach,
    freeze_embeddings,
    load_policy,
    make_policy,
    merge_lora,
    save_policy,
)
from plad.policy.prune import prune_layers
from plad.records import Example
from plad.train.groups import keep_fitting, sft_groups
from tests.support.tiny_models import (
    ENCODER_DECODERS,
    tiny_folder,
    tiny_lora_policy,
    tiny_model,
    tiny_policy,
    train_tokenizer,
)

IDS = torch.tensor([[40, 41, 42, 2]])
DECODED = torch.tensor([[0, 50, 51]])


def logits(policy: Policy) -> Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS, decoder_input_ids=DECODED).logits


def load(folder: Path, **fields: Any) -> Policy:
    return load_policy(ModelSection(model=str(folder), **fields))


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_a_saved_policy_reloads_with_equal_outputs_and_tokens(family: str, tmp_path: Path) -> None:
    policy = tiny_policy(family, tokenizer=train_tokenizer(adds_bos=family == "bart", adds_eos=True))
    save_policy(policy, tmp_path / "m")
    again = load(tmp_path / "m")
    assert torch.equal(logits(policy), logits(again))
    assert again.prompt.encode_prompt("Why? 12") == policy.prompt.encode_prompt("Why? 12")
    assert again.prompt.describe() == policy.prompt.describe()
    assert (policy.apart, again.apart) == (True, True)
    assert again.notes[-1] == ("decoder starts with </s>, <s>" if family == "bart" else "decoder starts with <pad>")


def test_a_head_of_its_own_stays_one_and_is_saved_so_that_every_version_keeps_it(tmp_path: Path) -> None:
    """FLAN-T5 as it was published: the head is in its file, and its config says that it is not tied nor scaled."""
    folder = tiny_folder(tmp_path / "flan", "t5")
    weights = load_file(folder / "model.safetensors")
    head = torch.randn_like(weights["shared.weight"])
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    config.pop("scale_decoder_outputs")
    (folder / "config.json").write_text(json.dumps(config))
    policy = load(folder)
    save_policy(policy, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/config.json").read_text())
    assert (saved["tie_word_embeddings"], saved["scale_decoder_outputs"]) == (False, False)
    again = load(tmp_path / "saved")
    assert torch.equal(logits(again), logits(policy))
    seen: list[Tensor] = []
    again.model.lm_head.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    torch.testing.assert_close(logits(again), seen[0] @ head.T)
    assert seen[0].square().mean().item() == pytest.approx(1, abs=1e-3), "a normalised state, not scaled"


def test_a_tied_head_is_scaled(tmp_path: Path) -> None:
    policy = load(tiny_folder(tmp_path / "t5", "t5"))
    seen: list[Tensor] = []
    policy.model.lm_head.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    torch.testing.assert_close(logits(policy), seen[0] @ policy.model.shared.weight.T)
    assert seen[0].square().mean().item() == pytest.approx(1 / 32, rel=1e-3)


# --- prompts


def formatted(prompt: str, *, adds_bos: bool = False, **fields: Any) -> list[str]:
    tokenizer = train_tokenizer(adds_bos=adds_bos, adds_eos=True)
    policy = tiny_policy("t5", tokenizer=tokenizer, prompt=PromptSection(**fields))
    return tokenizer.convert_ids_to_tokens(policy.prompt.encode_prompt(prompt))


def test_the_encoder_reads_a_text_as_its_tokenizer_closes_it() -> None:
    assert formatted("ab") == ["a", "b", "</s>"]
    assert formatted("ab", adds_bos=True) == ["<s>", "a", "b", "</s>"]
    assert formatted("ab", template="x{prompt}y") == ["x", "a", "b", "y", "</s>"]
    assert formatted("ab", template="x{prompt}</s>") == ["x", "a", "b", "</s>"], "closed once"


def test_a_control_token_in_a_prompt_is_text() -> None:
    assert "".join(formatted("a</s>")) == "a</s></s>"
    assert len(formatted("a</s>")) > 3


def test_a_decoder_only_prompt_is_not_closed() -> None:
    policy = tiny_policy("llama", tokenizer=train_tokenizer(adds_eos=True))
    assert policy.tokenizer.convert_ids_to_tokens(policy.prompt.encode_prompt("ab")) == ["a", "b"]
    assert "close" not in policy.prompt.describe()


def test_a_completion_ends_once_and_its_format_is_described() -> None:
    policy = tiny_policy("t5", tokenizer=train_tokenizer(adds_eos=True))
    assert policy.tokenizer.convert_ids_to_tokens(policy.prompt.encode_completion("ab")) == ["a", "b", "</s>"]
    assert policy.prompt.describe()["close"] == [2]


def test_the_tokenizer_of_t5_itself() -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0), ("b", -1.5), ("a", -3.0)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=2)
    policy = make_policy(tiny_model("t5", len(tokenizer), eos=1), tokenizer, PromptSection())
    assert tokenizer.convert_ids_to_tokens(policy.prompt.encode_prompt("ab b")) == ["▁a", "b", "▁", "b", "</s>"]
    assert policy.prompt.encode_completion("ab") == [4, 5, 1]
    assert policy.prompt.decode([4, 5, 3, 5, 1]) == "ab b"
    assert (policy.eos_ids, policy.pad_id) == ((1,), 0)


# --- lengths


def test_prompt_and_answer_have_a_context_each() -> None:
    """256 positions, of which the decoder's first two are its start and the token it must write."""
    policy = tiny_policy("bart")
    assert policy.context == 255
    assert policy.fits(255, 255)
    assert not policy.fits(256, 1)
    assert not policy.fits(1, 256)
    assert not policy.fits(200, 60, max_length=259)
    assert tiny_policy("t5").fits(100_000, 100_000)
    decoder_only = tiny_policy("llama")
    assert decoder_only.fits(200, 56)
    assert not decoder_only.fits(200, 57)


def test_rows_that_fit_apart_are_kept() -> None:
    example = Example("long", "ab" * 100, ("ab" * 50,))
    assert len(keep_fitting(sft_groups([example], tiny_policy("bart").prompt), tiny_policy("bart"), None).groups) == 1
    found = keep_fitting(sft_groups([example], tiny_policy("llama").prompt), tiny_policy("llama"), None)
    assert found.counts() == {"groups": 0, "too_long": 1, "no_completion": 0}


# --- adapters


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_an_adapter_trains_every_linear_layer_but_the_head_and_merges(family: str, tmp_path: Path) -> None:
    policy = tiny_lora_policy(tmp_path / "base", family, LoraSection(r=2, dropout=0))
    adapted = {n.rpartition(".")[2] for n, m in policy.model.named_modules() if hasattr(m, "lora_A")}
    attention = {"q", "k", "v", "o"}
    feed_forward = {"wi", "wo"} if family == "t5" else {"wi_0", "wi_1", "wo"}
    bart = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert adapted == (bart if family == "bart" else attention | feed_forward)
    before = logits(policy)
    for name, weight in policy.model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight.data) / 16
    trained = logits(policy)
    assert not torch.allclose(before, trained)
    save_policy(policy, tmp_path / "adapter")
    torch.testing.assert_close(logits(load(tmp_path / "adapter")), trained, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(merge_lora(policy)), trained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["flan_t5", "mt5"])
def test_an_adapter_on_a_head_of_its_own_survives_the_merge(family: str, tmp_path: Path) -> None:
    policy = tiny_lora_policy(tmp_path / "base", family, LoraSection(r=2, dropout=0, target_modules=("lm_head", "q")))
    for name, weight in policy.model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight.data) / 16
    trained, embeddings = logits(policy), policy.model.get_input_embeddings().weight.clone()
    save_policy(policy, tmp_path / "adapter")
    merged = load(tmp_path / "adapter")
    torch.testing.assert_close(logits(merged), trained, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.model.get_input_embeddings().weight, embeddings)
    save_policy(merged, tmp_path / "merged")
    torch.testing.assert_close(logits(load(tmp_path / "merged")), trained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "target"), [("t5", "lm_head"), ("t5", "shared"), ("llama", "lm_head")])
def test_an_adapter_on_a_head_tied_to_the_embeddings_is_refused(family: str, target: str) -> None:
    tied = {"tie_word_embeddings": True} if family == "llama" else {}
    with pytest.raises(PolicyError, match="one matrix: merged into the weights it would change both") as error:
        attach(tiny_policy(family, **tied), LoraSection(target_modules=(target,)))
    assert error.value.where == "lora.target_modules"
    assert "lm_head" in str(error.value)


def test_a_saved_adapter_on_a_tied_head_is_refused(tmp_path: Path) -> None:
    import peft

    model = tiny_policy("llama", tie_word_embeddings=True)
    save_policy(model, tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM")
    with pytest.warns(UserWarning, match="tied layer"):
        wrapped = peft.get_peft_model(model.model, config)
    wrapped.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(PolicyError, match="one matrix"):
        load(tmp_path / "adapter")


def test_frozen_embeddings_of_encoder_and_decoder_get_no_gradient() -> None:
    policy = tiny_policy("mt5")
    freeze_embeddings(policy)
    policy.model(input_ids=IDS, labels=DECODED).loss.backward()
    assert [n for n, p in policy.model.named_parameters() if p.grad is None] == ["shared.weight"]


# --- what is refused


def test_a_model_without_a_start_token_is_refused() -> None:
    with pytest.raises(PolicyError, match="names no decoder_start_token_id"):
        tiny_policy("t5", decoder_start_token_id=None)


def test_a_pruned_encoder_decoder_is_refused_before_and_while_it_is_made(tmp_path: Path) -> None:
    section = StudentSection(model=str(tiny_folder(tmp_path / "m", "t5")), init=PruneInit(layers=1))
    with pytest.raises(PolicyError, match="can't be pruned") as error:
        check_policy(section, "student")
    assert error.value.where == "student.init"
    with pytest.raises(PolicyError, match="can't be pruned"):
        prune_layers(load(tmp_path / "m"), 1, ["a"])


def test_a_gguf_file_of_an_encoder_decoder_is_refused_by_its_header(tmp_path: Path) -> None:
    file = tmp_path / "flan.gguf"
    writer = gguf.GGUFWriter(file, "t5")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(PolicyError, match=r"encoder-decoder \(t5\); of GGUF files only decoder-only"):
        load_policy(ModelSection(model=str(file)), cache_dir=tmp_path / "cache")


def test_a_vocabulary_larger_than_the_tokenizers_is_kept_and_a_smaller_one_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(adds_eos=True)
    policy = tiny_policy("bart", tokenizer=tokenizer)
    policy.model.resize_token_embeddings(len(tokenizer) + 20, mean_resizing=False)
    save_policy(policy, tmp_path / "larger")
    assert torch.equal(logits(load(tmp_path / "larger")), logits(policy))
    policy.model.resize_token_embeddings(len(tokenizer) - 20)
    save_policy(policy, tmp_path / "smaller")
    with pytest.raises(PolicyError, match="only 280 embedding rows"):
        load(tmp_path / "smaller")
