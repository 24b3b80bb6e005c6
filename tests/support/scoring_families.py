"""Tiny random models of every family, and groups to score with them."""

import random
import sys
import types
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from plad.scoring.layout import Group
from plad.scoring.score import Route

VOCAB = 61
WINDOW = 5

_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
_SHORT_WINDOW: dict[str, Any] = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_GEMMA: dict[str, Any] = {**_LLAMA, **_SHORT_WINDOW, "query_pre_attn_scalar": 8}
_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _LLAMA),
    "qwen2": ("Qwen2", _LLAMA),
    "qwen2_window": (
        "Qwen2",
        {**_LLAMA, **_SHORT_WINDOW, "use_sliding_window": True, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3", _LLAMA),
    "mistral": ("Mistral", {**_LLAMA, "sliding_window": WINDOW}),
    "gemma2": ("Gemma2", {**_GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3", _GEMMA),
    "gpt2": ("GPT2", {**_GPT, "scale_attn_by_inverse_layer_idx": True}),
    "opt": (
        "OPT",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "word_embed_proj_dim": 32,
            "init_std": 0.3,
        },
    ),
    "gpt_neox": (
        "GPTNeoX",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "initializer_range": 0.3,
        },
    ),
    "phi": ("Phi", {k: v for k, v in _LLAMA.items() if k != "head_dim"}),
    "phi3": ("Phi3", {k: v for k, v in _LLAMA.items() if k != "head_dim"} | {"sliding_window": WINDOW}),
    "gpt_neo": (
        "GPTNeo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": 128,
            "initializer_range": 0.3,
        },
    ),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "gpt_oss": (
        "GptOss",
        {
            **_LLAMA,
            **_SHORT_WINDOW,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "experts_implementation": "eager",
        },
    ),
    "t5": ("T5", _T5),
    "flan_t5": ("T5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": ("MT5", {**_T5, "num_decoder_layers": 3}),
    "bart": (
        "Bart",
        {
            "d_model": 32,
            **{
                f"{part}_{name}": n
                for part in ("encoder", "decoder")
                for name, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
            },
            "max_position_embeddings": 128,
            "init_std": 0.3,
            "dropout": 0.0,
            "decoder_start_token_id": 2,
            "scale_embedding": True,
        },
    ),
}
"""Every window is shorter than the prompts of `some_groups`, every soft cap low enough to bend the scores."""

ENCODER_DECODERS: dict[str, tuple[int, ...]] = {"t5": (0,), "flan_t5": (0,), "mt5": (0,), "bart": (2, 1)}
"""What each decoder reads before a completion: BART's start token, and then the one it is made to write."""


def routes(family: str) -> tuple[Route, ...]:
    """The routes by which a family can be scored, the fastest first."""
    if family in ENCODER_DECODERS:
        return (Route.ENCODER, Route.PLAIN)
    packs = family not in ("gpt_neo", "bloom", "gpt_oss")
    return (*((Route.SEGMENTS,) if packs else ()), Route.CACHE, Route.PLAIN)


ROUTES = [(family, route) for family in FAMILIES for route in routes(family)]


def tiny(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """A tiny random model in evaluation mode."""
    name, settings = FAMILIES[family]
    config_class = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    head = (
        "LMHeadModel" if name == "GPT2" else "ForConditionalGeneration" if family in ENCODER_DECODERS else "ForCausalLM"
    )
    model_class = getattr(transformers, name + head)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    model = model_class(config_class(vocab_size=VOCAB, **special, **{**settings, **changes}))
    if family == "flan_t5":  # its head is a matrix of its own, as in the weights that were published
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) / 2)
    if family == "bart":
        model.final_logits_bias.normal_()
        model.generation_config.forced_bos_token_id = 1
    return model.to(dtype).eval()


def some_groups(seed: int = 0) -> list[Group]:
    """Groups of one to three completions, of one token and more, behind prompts of several lengths."""
    draw = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCAB) for _ in range(n))

    shapes = [(13, (6, 4)), (1, (3,)), (9, (1, 7, 2)), (17, (5, 1)), (2, (1,))]
    return [Group(f"g{i}", tokens(p), tuple(map(tokens, c))) for i, (p, c) in enumerate(shapes)]


def plain_output(model: nn.Module, prompt: tuple[int, ...], completion: tuple[int, ...]) -> tuple[Tensor, slice]:
    """[1, T, V] logits of one sequence by the model's ordinary forward, and where they predict its completion."""
    config: Any = model.config
    if not config.is_encoder_decoder:
        return model(input_ids=torch.tensor([prompt + completion])).logits, slice(len(prompt) - 1, -1)
    start = ENCODER_DECODERS[config.model_type]
    rows = torch.tensor([start + completion])
    return model(input_ids=torch.tensor([prompt]), decoder_input_ids=rows).logits, slice(len(start) - 1, -1)


def plain_sums(model: nn.Module, groups: Sequence[Group]) -> Tensor:
    """[M] log-probability of each completion, one sequence at a time by the model's ordinary forward."""
    sums = []
    for group in groups:
        for completion in group.completions:
            logits, at = plain_output(model, group.prompt, completion)
            logps = torch.log_softmax(logits[0, at].to(torch.float64), -1)
            sums.append(sum((logps[i, t] for i, t in enumerate(completion)), torch.zeros(())))
    return torch.stack(sums)


def gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    """Gradient of `value` in every trainable weight."""
    model.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class _Wide(types.ModuleType):
    """torch, with float64 in the place of float32."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


def widen(monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
    """Let a float64 model compute in float64 where its code asks for float32 (norms, softmax, rotary angles)."""
    monkeypatch.setattr(sys.modules[type(model).__module__], "torch", _Wide("torch"))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
