"""GGUF files that transformers reads back as the same model and the same tokenizer."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from plad.errors import MissingExtraError, PolicyError
from plad.extras.export import gguf as gguf_write
from plad.extras.export.gguf import write_gguf
from plad.policy.backend import no_progress_bars
from tests.support.tiny_models import BOS_CHATML, CHATML, pieces_tokenizer, tiny_model, train_tokenizer

IDS = torch.tensor([[1, 40, 41, 42, 43]])
PROBE = ("Hello world 1234  x\n\nit's é 日本 🙂", "<|im_start|>user hi", " leading", "tail ")


def saved(folder: Path, tokenizer: Any = None, family: str = "llama", **model: Any) -> Path:
    with no_progress_bars():
        tiny_model(family, **model).save_pretrained(folder)
    (tokenizer or train_tokenizer(chat_template=CHATML)).save_pretrained(folder)
    return folder


def read_back(file: Path) -> tuple[Any, Any]:
    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_the_same_logits(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    shape = {"tie_word_embeddings": tied, "rope_theta": 5000.0, "rms_norm_eps": 1e-5}
    folder = saved(tmp_path / "model", dtype=dtype, **shape)
    write_gguf(folder, tmp_path / "x.gguf", name="x")
    model, _ = read_back(tmp_path / "x.gguf")
    assert model.config.tie_word_embeddings is tied
    original = tiny_model("llama", dtype=dtype, **shape).float()
    torch.testing.assert_close(model(IDS).logits, original(IDS).logits, rtol=0, atol=0)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_same_tokens_and_chat_template(tmp_path: Path, adds_bos: bool) -> None:
    chat = BOS_CHATML if adds_bos else CHATML
    tokenizer = train_tokenizer(chat_template=chat, adds_bos=adds_bos)
    write_gguf(saved(tmp_path / "model", tokenizer), tmp_path / "x.gguf", name="x")
    _, found = read_back(tmp_path / "x.gguf")
    assert [found(t).input_ids for t in PROBE] == [tokenizer(t).input_ids for t in PROBE]
    assert found.chat_template == chat
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (1, 2, 0)


def test_a_vocabulary_of_pieces_and_bytes(tmp_path: Path) -> None:
    tokenizer = pieces_tokenizer()
    folder = saved(tmp_path / "model", tokenizer, vocab_size=len(tokenizer) + 3)
    write_gguf(folder, tmp_path / "x.gguf", name="x")
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert (kinds[0], kinds[1], kinds[3], kinds[-1]) == (2, 3, 6, 5)  # unknown, control, byte, without a token
    scores, tokens = (fields[f"tokenizer.ggml.{k}"].contents() for k in ("scores", "tokens"))
    first, last = (
        tokens.index("".join(m.split(" "))) for m in (fields["tokenizer.ggml.merges"].contents()[i] for i in (0, -1))
    )
    assert 0 == scores[first] > scores[last]  # what is merged first scores highest
    _, found = read_back(tmp_path / "x.gguf")
    texts = ["the model", "a  b", "é 日"]
    assert [found(t).input_ids for t in texts] == [tokenizer(t).input_ids for t in texts]


def split(*steps: Any) -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    return tokenizer


BYTES, JOINED = (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex) for regex in (True, False))


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (split(BYTES), "gpt-2"),
        (split(pre_tokenizers.Digits(individual_digits=True), BYTES), "smollm"),
        (split(pre_tokenizers.Split(Regex(gguf_write._LLAMA3), "isolated"), JOINED), "llama-bpe"),
        (split(pre_tokenizers.Split(Regex(gguf_write._QWEN2), "isolated"), JOINED), "qwen2"),
    ],
)
def test_how_text_is_split_has_the_name_that_llama_cpp_knows(tmp_path: Path, tokenizer: Any, name: str) -> None:
    write_gguf(saved(tmp_path / "model", tokenizer), tmp_path / "x.gguf", name="x")
    assert gguf.GGUFReader(tmp_path / "x.gguf").fields["tokenizer.ggml.pre"].contents() == name


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("gpt2", {}, "it is a gpt2 model"),
        ("llama", {"attention_bias": True}, "its attention has biases"),
        ("llama", {"mlp_bias": True}, "its MLP has biases"),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rotary positions"),
    ],
)
def test_what_the_format_does_not_say_is_refused(
    tmp_path: Path, family: str, options: dict[str, Any], reason: str
) -> None:
    folder = saved(tmp_path / "model", family=family, **options)
    with pytest.raises(PolicyError, match=reason) as e:
        write_gguf(folder, tmp_path / "x.gguf", name="x")
    assert "convert_hf_to_gguf.py" in str(e.value)
    assert not (tmp_path / "x.gguf").exists()


def test_an_unknown_way_to_split_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", split(pre_tokenizers.Whitespace(), BYTES))
    with pytest.raises(PolicyError, match="name for how it splits text"):
        write_gguf(folder, tmp_path / "x.gguf", name="x")


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer()
    folder = saved(tmp_path / "model", tokenizer, vocab_size=len(tokenizer) - 1)
    with pytest.raises(PolicyError, match=f"{len(tokenizer):,} tokens for {len(tokenizer) - 1:,} embedding rows"):
        write_gguf(folder, tmp_path / "x.gguf", name="x")


def test_without_the_gguf_package_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_write.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="needs the package gguf"):
        write_gguf(tmp_path, tmp_path / "x.gguf", name="x")
