"""Log-probabilities from logits, without a second tensor of the logits' size in the forward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TILE = 2**20
"""Logits worked on at a time: a few MB, which stay in the cache."""


def log_probs(logits: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Log-softmax of some rows of logits at some tokens.

    Args:
        logits: [R, V], left unchanged: the model may have saved them for its own backward pass.
        sources: [N] row of each wanted token; a row may be used several times or never.
        targets: [N] token ids.

    Returns:
        [N] log-probabilities in nats, float32 or the logits' own type where that is wider.
    """
    return _LogProbs.apply(logits, sources, targets)  # type: ignore[no-any-return]


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        tiles = torch.split(logits, max(1, _TILE // logits.shape[1]))
        normalizer = torch.cat([torch.logsumexp(tile.to(dtype), 1) for tile in tiles])
        ctx.save_for_backward(logits, normalizer, sources, targets)
        return logits[sources, targets].to(dtype) - normalizer[sources]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grad,) = grads
        logits, normalizer, sources, targets = ctx.saved_tensors
        total = torch.zeros_like(normalizer).index_add_(0, sources, grad).neg_()
        out = torch.empty_like(logits, memory_format=torch.contiguous_format)
        step = max(1, _TILE // logits.shape[1])
        for start in range(0, len(logits), step):
            rows = slice(start, start + step)
            # softmax of the tile, in the wider type: written into `out` itself where the types agree
            tile = out[rows] if out.dtype == grad.dtype else torch.empty_like(out[rows], dtype=grad.dtype)
            torch.sub(logits[rows].to(grad.dtype), normalizer[rows, None], out=tile)
            tile.exp_().mul_(total[rows, None])
            inside = (sources >= start) & (sources < start + len(tile))
            at = (sources - start).clamp_(0, len(tile) - 1) * tile.shape[1] + targets
            tile.view(-1).index_add_(0, at, grad * inside)
            if tile.dtype != out.dtype:
                out[rows] = tile
        return out, None, None
