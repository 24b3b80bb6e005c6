"""Tiny random decoder-only models of every family, and groups to score with them."""

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
}
"""Every window is shorter than the prompts of `some_groups`, every soft cap low enough to bend the scores."""


def tiny(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """A tiny random model in evaluation mode."""
    name, settings = FAMILIES[family]
    config_class = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    model_class = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    model = model_class(config_class(vocab_size=VOCAB, **special, **{**settings, **changes}))
    return model.to(dtype).eval()


def some_groups(seed: int = 0) -> list[Group]:
    """Groups of one to three completions, of one token and more, behind prompts of several lengths."""
    draw = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCAB) for _ in range(n))

    shapes = [(13, (6, 4)), (1, (3,)), (9, (1, 7, 2)), (17, (5, 1)), (2, (1,))]
    return [Group(f"g{i}", tokens(p), tuple(map(tokens, c))) for i, (p, c) in enumerate(shapes)]


def plain_sums(model: nn.Module, groups: Sequence[Group]) -> Tensor:
    """[M] log-probability of each completion, one sequence at a time by the model's ordinary forward."""
    sums = []
    for group in groups:
        for completion in group.completions:
            ids = torch.tensor([group.prompt + completion])
            logps = torch.log_softmax(model(input_ids=ids).logits[0].to(torch.float64), -1)
            sums.append(sum((logps[len(group.prompt) - 1 + i, t] for i, t in enumerate(completion)), torch.zeros(())))
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
