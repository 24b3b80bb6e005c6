"""Loading a policy: what is decided is said, and what can't work is refused with the way out."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
)

from plad.config.models import LoraSection, ModelSection, PromptSection
from plad.errors import PolicyError
from plad.policy.backend import choose_dtype
from plad.policy.folder import check_policy
from plad.policy.load import attach, freeze_embeddings, load_policy, merge_lora, save_policy
from plad.policy.resolve import resolve_model
from tests.support.tiny_models import CHATML, FAMILIES, tiny_folder, tiny_lora_policy, tiny_policy, train_tokenizer

IDS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50]])


def load(folder: Path, **fields: object) -> object:
    return load_policy(ModelSection.model_validate({"model": str(folder), **fields}))


def edit_json(file: Path, **fields: object) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **fields}))


def refused(folder: Path, match: str, **fields: object) -> str:
    with pytest.raises(PolicyError, match=match) as error:
        load(folder, **fields)
    return str(error.value)


# --- what loading gives


def test_every_decision_is_noted_with_its_reason(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(chat_template=CHATML, eos_token="<|im_end|>", pad_token="<|im_end|>")
    policy = load_policy(ModelSection(model=str(tiny_folder(tmp_path / "m", tokenizer=tokenizer))))
    assert policy.notes == [
        "dtype float32 (auto: CPU)",
        "device cpu (auto: no GPU)",
        "prompt format chat (auto: the tokenizer has a chat template)",
        "end token <|im_end|> (the chat template closes an answer with it)",
        "pad token <pad> (the tokenizer's is the end token; padding is known from lengths)",
        "context 256 tokens",
    ]
    assert (policy.eos_ids, policy.pad_id, policy.context) == ((4,), 0, 256)
    assert (policy.device.type, policy.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_policy_reloads_with_equal_outputs_and_tokens(family: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(chat_template=CHATML, adds_bos=True)
    policy = tiny_policy(family, tokenizer=tokenizer)
    save_policy(policy, tmp_path / "m")
    again = load_policy(ModelSection(model=str(tmp_path / "m")))
    assert torch.equal(policy.model(IDS).logits, again.model(IDS).logits)
    assert again.prompt.encode_prompt("Why? 12") == policy.prompt.encode_prompt("Why? 12")
    assert again.prompt.encode_completion("So.") == policy.prompt.encode_completion("So.")
    assert again.prompt.describe() == policy.prompt.describe()
    assert not list((tmp_path / "m").glob("*.bin"))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_the_one_asked_for(name: str, tmp_path: Path) -> None:
    policy = load_policy(ModelSection.model_validate({"model": str(tiny_folder(tmp_path / "m")), "dtype": name}))
    assert policy.model.dtype == policy.dtype == getattr(torch, name)
    assert policy.notes[0] == f"dtype {name} (set by dtype)"


def test_auto_dtype_is_bfloat16_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_dtype("auto", gpu)[0] == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert choose_dtype("auto", gpu)[0] == torch.float32


def test_all_end_tokens_of_the_generation_config_stop_an_answer(tmp_path: Path) -> None:
    policy = load_policy(ModelSection(model=str(tiny_folder(tmp_path / "m", eos=[2, 4]))))
    assert policy.eos_ids == (2, 4)


def test_a_model_without_a_stated_context_is_not_limited(tmp_path: Path) -> None:
    policy = tiny_policy("bloom")
    assert policy.context > 100_000
    assert "context not limited by the model" in policy.notes


def test_a_folder_takes_the_place_of_the_configs_model(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "a", seed=1)
    b = tiny_folder(tmp_path / "b", seed=2)
    policy = load_policy(ModelSection(model=str(tmp_path / "a")), folder=b)
    assert torch.equal(policy.model(IDS).logits, load_policy(ModelSection(model=str(b))).model(IDS).logits)


def test_a_fine_tuned_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    section = ModelSection(model=str(tiny_folder(tmp_path / "a")))
    with pytest.raises(PolicyError, match="no model in this folder") as error:
        load_policy(section, folder=tmp_path / "sft")
    assert str(tmp_path / "sft") in str(error.value)


def test_the_prompt_section_reaches_the_policy(tmp_path: Path) -> None:
    section = ModelSection(model=str(tiny_folder(tmp_path / "m")), prompt=PromptSection(template="Q: {prompt} A:"))
    assert load_policy(section).prompt.kind == "template"


def test_a_qwen2_model_keeps_the_tokenizer_that_lies_beside_it(tmp_path: Path) -> None:
    tokenizer = train_tokenizer()
    policy = load_policy(ModelSection(model=str(tiny_folder(tmp_path / "m", "qwen2", tokenizer=tokenizer))))
    assert policy.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_frozen_embeddings_and_a_tied_head_get_no_gradient() -> None:
    policy = tiny_policy("llama", tie_word_embeddings=True)
    freeze_embeddings(policy)
    policy.model(IDS, labels=IDS).loss.backward()
    without = [n for n, p in policy.model.named_parameters() if p.grad is None]
    assert without == ["model.embed_tokens.weight"]


# --- what is refused


def test_a_missing_folder_says_where_paths_start() -> None:
    assert "relative to the working directory" in refused(Path("./no/such/folder"), "no such folder")


def test_a_missing_gguf_file_is_named() -> None:
    refused(Path("models/none.gguf"), "no such file")


def test_a_hub_name_while_offline_gets_the_command_to_fix_it() -> None:
    assert "hf download owner/name" in refused(Path("owner/name"), "can't be reached or is switched off")


def test_a_hub_name_already_downloaded_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    repo = tmp_path / "models--owner--name"
    tiny_folder(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    policy = load_policy(ModelSection(model="owner/name", revision="main"))
    assert (policy.base, policy.base_revision) == ("owner/name", "main")


@pytest.mark.parametrize(
    ("error", "message", "way_out"),
    [
        ("GatedRepoError", "gated", "hf auth login"),
        ("RepositoryNotFoundError", "no such model on the hub", "hf auth login"),
        ("RevisionNotFoundError", "no revision v9", "revision"),
        ("LocalEntryNotFoundError", "can't be reached", "hf download owner/name --revision v9"),
    ],
)
def test_every_refusal_of_the_hub_is_one_sentence_with_a_way_out(
    error: str, message: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> None:
        response = SimpleNamespace(headers={}, request=None)
        kind = getattr(errors, error)
        raise kind("no") if error == "LocalEntryNotFoundError" else kind("no", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    text = refused(Path("owner/name"), message, revision="v9")
    assert way_out in text


def test_a_revision_of_a_local_folder_is_refused(tmp_path: Path) -> None:
    refused(tiny_folder(tmp_path / "m"), "revision belongs to a hub model", revision="main")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no model in this folder")


def test_a_single_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(tmp_path / "model.safetensors", "single file")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_with_the_reason_and_a_way_out(name: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    torch.save(load_file(folder / "model.safetensors"), folder / name)
    (folder / "model.safetensors").unlink()
    text = refused(folder, "run code, so only safetensors are read")
    assert name in text
    assert "save_pretrained" in text


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    refused(folder, r"no \*\.safetensors weights")


def test_a_model_that_brings_its_own_code_is_refused_and_the_code_never_runs(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    (folder / "custom.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "custom.C", "AutoModelForCausalLM": "custom.M"}
    edit_json(folder / "config.json", model_type="mystery", auto_map=auto)
    text = refused(folder, "never runs code that comes with a model")
    assert "part of transformers" in text
    assert not (tmp_path / "ran").exists()


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    edit_json(folder / "config.json", model_type="mystery")
    assert "update transformers" in refused(folder, "mystery")


def test_an_encoder_is_refused_saying_what_is_supported(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path)
    refused(tmp_path, "BertModel is not a language model with a head; causal and sequence-to-sequence")


def test_a_model_without_its_head_is_refused_rather_than_given_a_random_one(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if k != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "head included" in refused(folder, r"lacks weights .*lm_head\.weight")


def test_a_bare_backbone_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path)
    refused(tmp_path, "LlamaModel is not a language model with a head")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    edit_json(folder / "config.json", intermediate_size=64)
    refused(folder, "weights can't be loaded")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    refused(folder, "weights can't be loaded")


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    (folder / "config.json").write_text("{")
    refused(folder, r"config\.json can't be read")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer.json" in refused(folder, "tokenizer")


def test_a_tokenizer_larger_than_the_model_is_refused_naming_both_sizes(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", tokenizer=train_tokenizer(vocab_size=300), vocab_size=280)
    refused(folder, "300 tokens, the model only 280 embedding rows")


def test_a_model_with_spare_embedding_rows_is_fine(tmp_path: Path) -> None:
    policy = load(tiny_folder(tmp_path / "m", vocab_size=320))
    assert len(policy.tokenizer) < policy.model.get_input_embeddings().num_embeddings == 320


# --- adapters


def randomise(policy: object) -> None:
    """Give a fresh adapter (whose B is zero) an effect."""
    for name, weight in policy.model.named_parameters():  # type: ignore[attr-defined]
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_reloads_merged_with_equal_outputs(family: str, tmp_path: Path) -> None:
    policy = tiny_lora_policy(tmp_path / "m", family)
    before = policy.model(IDS).logits
    randomise(policy)
    adapted = policy.model(IDS).logits
    assert not torch.allclose(before, adapted, atol=1e-3)
    save_policy(policy, tmp_path / "adapter")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = load_policy(ModelSection(model=str(tmp_path / "adapter")))
    torch.testing.assert_close(again.model(IDS).logits, adapted, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name, _ in again.model.named_parameters())


def test_an_adapter_adapts_every_linear_layer_but_the_head_with_the_papers_settings(tmp_path: Path) -> None:
    policy = tiny_lora_policy(tmp_path / "m", layers=1)
    adapted = {n.split(".lora_A")[0].rpartition(".")[2] for n, _ in policy.model.named_parameters() if "lora_A" in n}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    config = policy.model.peft_config["default"]  # type: ignore[operator, index]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 32, 0.1)
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in n for n in trained)


def test_target_modules_narrow_the_adapter(tmp_path: Path) -> None:
    policy = tiny_lora_policy(tmp_path / "m", lora=LoraSection(target_modules=("q_proj", "v_proj"), r=2))
    adapted = {n.split(".lora_A")[0].rpartition(".")[2] for n, _ in policy.model.named_parameters() if "lora_A" in n}
    assert adapted == {"q_proj", "v_proj"}


def test_unknown_target_modules_are_refused_naming_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"lora\.target_modules") as error:
        tiny_lora_policy(tmp_path / "m", lora=LoraSection(target_modules=("query",)))
    assert "q_proj" in str(error.value)


def test_an_adapter_on_an_adapter_reloads_through_both(tmp_path: Path) -> None:
    first = tiny_lora_policy(tmp_path / "m")
    randomise(first)
    save_policy(first, tmp_path / "one")
    section = ModelSection(model=str(tmp_path / "m"))
    second = load_policy(section, folder=tmp_path / "one", attach_lora=LoraSection())
    torch.testing.assert_close(second.model(IDS).logits, first.model(IDS).logits, atol=1e-5, rtol=1e-5)
    randomise(second)
    save_policy(second, tmp_path / "two")
    again = load_policy(section, folder=tmp_path / "two")
    torch.testing.assert_close(again.model(IDS).logits, second.model(IDS).logits, atol=1e-5, rtol=1e-5)
    assert sum("merged" in note for note in again.notes) == 2


def test_a_merged_policy_is_an_ordinary_model_that_trains_every_weight(tmp_path: Path) -> None:
    policy = tiny_lora_policy(tmp_path / "m")
    randomise(policy)
    adapted = policy.model(IDS).logits
    merged = merge_lora(policy)
    torch.testing.assert_close(merged.model(IDS).logits, adapted, atol=1e-5, rtol=1e-5)
    assert all(p.requires_grad for p in merged.model.parameters())
    save_policy(merged, tmp_path / "whole")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(plain(IDS).logits, adapted, atol=1e-5, rtol=1e-5)
    assert merge_lora(merged) is merged


def test_an_adapter_over_weights_that_were_never_saved_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="exist only in memory"):
        save_policy(attach(tiny_policy(), LoraSection()), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"hidden_size": 64}, r"mlp\.down_proj is 48 -> 32, its base's 48 -> 64"),
        ({"layers": 3}, r"has weights for model\.layers\.3\..* 3 layers\) doesn't have"),
        ({"layers": 5}, r"has no weights for 7 modules of its base, such as model\.layers\.4"),
        ({"family": "gpt2"}, r"GPT2LMHeadModel, 2 layers\) doesn't have"),
    ],
)
def test_an_adapter_on_another_base_is_refused_naming_what_differs(
    other: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m", layers=4), tmp_path / "adapter")
    tiny_folder(tmp_path / "other", **other)  # type: ignore[arg-type]
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "other"))
    refused(tmp_path / "adapter", message)


def test_an_adapters_tokenizer_larger_than_its_base_is_refused_naming_both_sizes(tmp_path: Path) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    train_tokenizer(vocab_size=310).save_pretrained(tmp_path / "adapter")
    refused(tmp_path / "adapter", "310 tokens, the model only 300")


def test_an_adapter_without_its_own_tokenizer_uses_its_bases(tmp_path: Path) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    for file in (tmp_path / "adapter").glob("tokenizer*"):
        file.unlink()
    policy = load_policy(ModelSection(model=str(tmp_path / "adapter")))
    assert policy.tokenizer.get_vocab() == train_tokenizer().get_vocab()


def test_an_adapter_whose_base_is_gone_is_refused_naming_the_base(tmp_path: Path) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    (tmp_path / "m").rename(tmp_path / "elsewhere")
    text = refused(tmp_path / "adapter", f"base model {tmp_path / 'm'} can't be used")
    assert "base_model_name_or_path" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "adapter of type IA3"),
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"megatron_config": {"x": 1}, "megatron_core": "antigravity"}, "nothing is imported because a file says so"),
    ],
)
def test_an_adapter_that_is_no_lora_names_no_base_or_names_code_is_refused(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", **fields)
    refused(tmp_path / "adapter", message)


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(tmp_path / "adapter", "only safetensors are read")


def test_resolving_needs_no_weights_in_memory(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    assert resolve_model(str(folder)) == folder


def test_a_prompt_is_checked_without_weights_and_names_its_policy(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", tokenizer=train_tokenizer(chat_template=CHATML))
    (folder / "model.safetensors").write_bytes(b"")
    check_policy(ModelSection(model=str(folder)), "teacher")
    wrong = ModelSection(model=str(folder), prompt=PromptSection(separator=" "))
    with pytest.raises(PolicyError) as error:
        check_policy(wrong, "student")
    assert str(error.value).startswith("student.prompt.separator: a separator is for plain prompts")
