"""Tiny tokenizers, models, folders and policies made on the spot; nothing is downloaded."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from plad.config.models import LoraSection, ModelSection, PromptSection
from plad.policy.load import Policy, load_policy, make_policy

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BOS_CHATML = "{{ bos_token }}" + CHATML

TEXTS = (
    "Summarize the abstract in one sentence. We introduce a small model that learns from a large one.",
    "The teacher writes the better answer and the student learns to prefer it.",
    "A preference is an order of two texts; a margin of one nat is enough.",
)

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neo",
    "opt",
    "gpt_neox",
    "phi",
    "bloom",
)
ENCODER_DECODERS = ("t5", "flan_t5", "mt5", "bart")

_SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>")


@functools.lru_cache
def _tokenizer_json(texts: tuple[str, ...], vocab_size: int) -> str:
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    backend.decoder = ByteLevelDecoder()  # type: ignore[assignment]
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in _SPECIAL],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend.to_str()


def train_tokenizer(
    texts: Sequence[str] | None = None,
    *,
    vocab_size: int = 300,
    chat_template: str | None = None,
    pad_token: str | None = "<pad>",
    eos_token: str | None = "</s>",
    bos_token: str | None = "<s>",
    unk_token: str | None = None,
    adds_bos: bool = False,
    adds_eos: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: every text round-trips.

    The vocabulary always holds ``<pad> <s> </s> <|im_start|> <|im_end|> <unk>`` (ids 0..5); the arguments
    say which of them play a role. ``adds_bos`` and ``adds_eos`` make the tokenizer put them around a text.
    """
    backend = Tokenizer.from_str(_tokenizer_json(tuple(texts) if texts else TEXTS, vocab_size))
    if adds_bos or adds_eos:
        names = [n for n in (bos_token if adds_bos else None, "$A", eos_token if adds_eos else None) if n]
        used = [n for n in names if n != "$A"]
        backend.post_processor = TemplateProcessing(  # type: ignore[assignment]
            single=" ".join(names), special_tokens=[(n, backend.token_to_id(n)) for n in used]
        )
    named = {"pad_token": pad_token, "eos_token": eos_token, "bos_token": bos_token, "unk_token": unk_token}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in named.items() if v})
    tokenizer.chat_template = chat_template
    return tokenizer


def pieces_tokenizer() -> LlamaTokenizer:
    """A vocabulary like Llama 2's: pieces of words after a visible space, and bytes for the rest."""
    backend = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # type: ignore[assignment]
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    backend.train_from_iterator(TEXTS, BpeTrainer(vocab_size=330, special_tokens=special))  # type: ignore[call-arg]
    model = json.loads(backend.to_str())["model"]
    return LlamaTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], add_bos_token=True)


_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}
_GATED: dict[str, Any] = {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_SHAPES: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "flan_t5": _GATED,
    "mt5": _GATED,
    "bart": {
        "d_model": 32,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 256,
        "decoder_start_token_id": 2,
        "forced_bos_token_id": 1,
        "dropout": 0.0,
    },
    "llama": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": {**_LLAMA_LIKE, "head_dim": 8},
    "mistral": {**_LLAMA_LIKE, "sliding_window": 8, "head_dim": 8},
    "gemma2": {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3": {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": 256,
    },
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "word_embed_proj_dim": 32,
    },
    "gpt_neox": {k: v for k, v in _LLAMA_LIKE.items() if k != "num_key_value_heads"},
    "phi": _LLAMA_LIKE,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}


def _dropouts(family: str) -> dict[str, float]:
    """No dropout: in training mode a tiny model is as deterministic as in evaluation."""
    return {
        "gpt2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
        "gpt_neo": {"attention_dropout": 0.0, "embed_dropout": 0.0, "resid_dropout": 0.0},
        "opt": {"dropout": 0.0, "attention_dropout": 0.0},
        "gpt_neox": {"attention_dropout": 0.0, "hidden_dropout": 0.0},
        "phi": {"attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
        "bloom": {"attention_dropout": 0.0, "hidden_dropout": 0.0},
    }.get(family, {})


def tiny_model(
    family: str = "llama",
    vocab_size: int = 300,
    *,
    layers: int = 2,
    eos: int | Sequence[int] | None = 2,
    pad: int | None = 0,
    bos: int | None = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **overrides: Any,
) -> PreTrainedModel:
    """A seeded random language model of one family, in evaluation mode.

    Args:
        family: one of FAMILIES or ENCODER_DECODERS.
        layers: number of decoder layers, and of encoder layers.
        eos, pad, bos: ids written to the config and the generation config.
        overrides: fields of the family's config class.
    """
    shape = {**_SHAPES[family], **_dropouts(family), **overrides}
    if family == "gpt_neo":
        kinds = [["global", "local"][i % 2] for i in range(layers)]
        shape |= {"num_layers": layers, "attention_types": [[[kind], 1] for kind in kinds]}
    elif family == "bart":
        shape |= {"encoder_layers": layers, "decoder_layers": layers}
    else:
        shape[next((n for n in ("n_layer", "num_layers") if n in shape), "num_hidden_layers")] = layers
    ids: dict[str, Any] = {"eos_token_id": list(eos) if isinstance(eos, Sequence) else eos}
    ids |= {"pad_token_id": pad, "bos_token_id": bos}
    kind = {"gemma3": "gemma3_text", "flan_t5": "t5"}.get(family, family)
    config = AutoConfig.for_model(kind, vocab_size=vocab_size, **shape, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loader = AutoModelForSeq2SeqLM if family in ENCODER_DECODERS else AutoModelForCausalLM
        model = loader.from_config(config, dtype=dtype)
        if family in ("flan_t5", "mt5"):  # their head is a matrix of its own
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) / 6)
    more = {n: shape[n] for n in ("decoder_start_token_id", "forced_bos_token_id") if n in shape}
    model.generation_config = GenerationConfig(**ids, **more)
    return model.eval()


def tiny_folder(
    path: Path,
    family: str = "llama",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **model_options: Any,
) -> Path:
    """A saved Hugging Face folder of a tiny model and its tokenizer; returns `path`."""
    tokenizer = tokenizer or train_tokenizer()
    model_options = {"eos": tokenizer.eos_token_id, **model_options}
    model = tiny_model(family, model_options.pop("vocab_size", len(tokenizer)), **model_options)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_policy(
    family: str = "llama",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    prompt: PromptSection | None = None,
    **model_options: Any,
) -> Policy:
    """A policy around a tiny model that was never saved (CPU, the model's own dtype)."""
    tokenizer = tokenizer or train_tokenizer()
    model_options = {"eos": tokenizer.eos_token_id, **model_options}
    model = tiny_model(family, model_options.pop("vocab_size", len(tokenizer)), **model_options)
    return make_policy(model, tokenizer, prompt or PromptSection())


def tiny_lora_policy(path: Path, family: str = "llama", lora: LoraSection | None = None, **options: Any) -> Policy:
    """A policy loaded from a tiny folder written at `path`, with a fresh adapter on it."""
    folder = tiny_folder(path, family, **options)
    return load_policy(ModelSection(model=str(folder)), attach_lora=lora or LoraSection())


WORDS = ("one", "two", "red", "blue", "sun", "moon", "cat", "dog")


def word_tokenizer(ends: int = 6, *, adds_eos: bool = False) -> PreTrainedTokenizerFast:
    """Words, and several tokens that end an answer: a random model ends its answers by itself."""
    special = ["<pad>", "<s>", "</s>", *(f"</{i}>" for i in range(ends - 1)), "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    if adds_eos:
        backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="<unk>",
        extra_special_tokens=special[3:-1],
    )


def word_model_folder(folder: Path, family: str, *, seed: int, ends: int = 6, chat_template: str | None = None) -> str:
    """A saved folder of a tiny model over `word_tokenizer`; returns its path."""
    tokenizer = word_tokenizer(ends, adds_eos=family in ENCODER_DECODERS)
    tokenizer.chat_template = chat_template
    tiny_folder(folder, family, tokenizer=tokenizer, seed=seed, eos=list(range(2, 2 + ends)))
    return str(folder)
