"""One attention function for packed scoring and for slot decoding, registered with transformers.

The model stays unchanged. A *plan* travels as the keyword ``plad_plan`` of the model call through every
layer to this function, and says which queries see which keys; there is no global state and no mask of
the whole row. Keywords of an attention layer that are not understood are refused, never ignored.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from plad.errors import PolicyError

NAME = "plad"

# Keywords that transformers passes along and that don't change what attention computes.
_HARMLESS = frozenset(
    {
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "is_causal",
    }
)


_CPU_QUERIES = 128
"""Queries a call on CPU, where PyTorch multiplies out what a causal mask hides: cut off, it is not computed."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Scaled dot-product attention with one layer's scale, window, soft cap and dropout."""

    scaling: float | None
    dropout: float
    sliding_window: int | None
    softcap: float | None

    def causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the last T positions of a sequence over its S positions.

        Args:
            query: [1, heads, T, dim]; key, value: [1, kv_heads, S, dim] with S >= T.

        Returns:
            [1, heads, T, dim].
        """
        queries, keys = query.shape[2], key.shape[2]
        if query.device.type == "cpu" and queries > _CPU_QUERIES:
            starts = range(0, queries, _CPU_QUERIES)
            parts = zip(torch.split(query, _CPU_QUERIES, 2), starts, strict=True)
            out = [self._causal_part(part, key, value, keys - queries + start) for part, start in parts]
            # joined with tokens before heads, as the layer reads it: its transposition then copies nothing
            return torch.cat([part.transpose(1, 2) for part in out], 1).transpose(1, 2)
        windowed = self.sliding_window is not None and keys > self.sliding_window
        if queries == keys and not windowed and self.softcap is None:
            # without a mask PyTorch may take its flash kernel
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                is_causal=True,
                dropout_p=self.dropout,
                scale=self.scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        # `is_causal` would align fewer queries with the first keys, not the last
        position = torch.arange(keys - queries, keys, device=query.device)[:, None]
        other = torch.arange(keys, device=query.device)[None]
        visible = other <= position
        if windowed:
            assert self.sliding_window is not None
            visible &= other > position - self.sliding_window
        return self.masked(query, key, value, visible)

    def _causal_part(self, query: Tensor, key: Tensor, value: Tensor, position: int) -> Tensor:
        """Attention of the queries from `position` of the sequence on, over the keys that they see."""
        end = position + query.shape[2]
        return self.causal(query, key[:, :, :end], value[:, :, :end])

    def masked(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """Attention where `visible` (broadcastable to [B, heads, T, S]) is true."""
        if self.softcap is None:
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=visible,
                dropout_p=self.dropout,
                scale=self.scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        # no kernel of PyTorch's has a soft cap: scores are multiplied out, query heads that share a key head apart
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scale = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        scores = torch.tanh(query @ key.transpose(2, 3) * (scale / self.softcap)) * self.softcap
        wide = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1, dtype=wide).to(query.dtype)
        return F.dropout(weights, self.dropout) @ value


class AttentionPlan(Protocol):
    """Says which queries of a model call see which keys."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        """Attention of one layer: query [B, heads, T, dim] -> [B, heads, T, dim]."""
        ...


def plad_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    plad_plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function behind ``attn_implementation="plad"``.

    Raises:
        PolicyError: without a plan, with a mask, or with a keyword that isn't understood.
    """
    # a keyword that is ignored (a bias, a sink, a chunk) would give other numbers without a word
    unknown = sorted(k for k, v in kwargs.items() if v is not None and k not in _HARMLESS)
    if unknown or plad_plan is None or attention_mask is not None:
        reason = (
            f"attention keywords {unknown} are not understood"
            if unknown
            else "no plad_plan was given"
            if plad_plan is None
            else "a mask was given beside the plan"
        )
        raise PolicyError(f"{type(module).__name__}: {reason}")
    kernel = Kernel(scaling, dropout, sliding_window, softcap)
    layer: int = module.layer_idx  # type: ignore[assignment]
    out = plad_plan.attend(layer, query, key, value, kernel)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, plad_attention)  # pyright: ignore[reportUnknownMemberType]  # untyped


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside peft and DistributedDataParallel wrappers."""
    while isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner
    if hasattr(model, "get_base_model"):
        model = cast(Any, model).get_base_model()
    return cast(PreTrainedModel, model)


def replaceable(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be replaced through transformers' AttentionInterface."""
    return model._can_set_attn_implementation()  # pyright: ignore[reportPrivateUsage]  # no public way to ask


def implementation(model: PreTrainedModel) -> str:
    """The name of the attention function that the model uses now."""
    name: str | None = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # no public way to ask
    return name or "eager"


@contextmanager
def plan_attention(model: nn.Module) -> Generator[None]:
    """Switch `model`, bare or wrapped, to plad's attention inside the block; blocks may be nested.

    Raises:
        PolicyError: the model's attention can't be replaced.
    """
    base = unwrap(model)
    if not replaceable(base):
        raise PolicyError(f"the attention of {type(base).__name__} can't be replaced")
    before = implementation(base)
    if before == NAME:  # an outer block switches back
        yield
        return
    _switch(base, NAME)
    try:
        yield
    finally:
        _switch(base, before)


def _switch(base: PreTrainedModel, name: str) -> None:
    base.set_attn_implementation(name)  # pyright: ignore[reportUnknownMemberType]  # untyped
