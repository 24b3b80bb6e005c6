"""Scores as the core would give them, from token log-probabilities written out by hand."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plad.objectives.base import ObjectiveOut
from plad.scoring.layout import Group
from plad.scoring.score import Scores

Texts = Sequence[Sequence[float]]
"""Completions of one prompt as token log-probabilities."""


def one(
    texts: Texts,
    chosen: int = 1,
    *,
    pairs: tuple[tuple[int, int], ...] = (),
    context: int = 0,
    **values: Sequence[float],
) -> tuple[Group, list[float]]:
    """A group with these token log-probabilities."""
    completions = tuple((5,) * len(text) for text in texts)
    of_texts: Mapping[str, tuple[float, ...]] = {name: tuple(value) for name, value in values.items()}
    group = Group(f"g{len(texts)}", (1,), completions, chosen, pairs=pairs, values=of_texts, context=context)
    return group, [logp for text in texts for logp in text]


def scores(*groups: tuple[Group, list[float]], states: Tensor | None = None) -> Scores:
    """What the core would measure of these groups."""
    logps = [logp for _, text in groups for logp in text]
    return Scores([group for group, _ in groups], torch.tensor(logps, dtype=torch.float64, requires_grad=True), states)


def gradient(measured: Scores, out: ObjectiveOut) -> list[float]:
    """Gradient of the sum of the losses in every token's log-probability."""
    return torch.autograd.grad(out.losses.sum(), measured.logps)[0].tolist()
