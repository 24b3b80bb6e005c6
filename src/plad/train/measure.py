"""What objectives need to know of every text before training starts, measured once with the starting student."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import nn

from plad.scoring.attention import unwrap
from plad.scoring.layout import Group, pack
from plad.scoring.score import Route, score
from plad.train.loss import REFERENCE, SIMILARITY, live_similarity


@torch.no_grad()
def measure(
    model: nn.Module,
    groups: Sequence[Group],
    *,
    route: Route,
    reference_logp: bool,
    spans: Sequence[int] | None,
    max_tokens: int | None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, tuple[float, ...]]]:
    """Measure the candidates of every group with the model as it is.

    Args:
        groups: with one reference each as context, where similarity is measured.
        reference_logp: measure log P of every text, the sum over its tokens.
        spans: measure similarity to the reference by spans of these lengths; None to leave it out.
        max_tokens: most tokens in one forward pass; None for one group a pass.
        advance: called with the number of groups done.

    Returns:
        For each group what its candidates measure, by name.
    """
    model.eval()
    found: list[dict[str, tuple[float, ...]]] = []
    for row in pack(groups, max_tokens):
        scores = score(model, row, route=route, states=spans is not None, logits=reference_logp)
        columns: dict[str, list[float]] = {}
        if reference_logp:
            columns[REFERENCE] = scores.sums().tolist()  # pyright: ignore[reportUnknownMemberType]  # torch has no type
        if spans is not None:
            columns[SIMILARITY] = live_similarity(scores, spans).tolist()  # pyright: ignore[reportUnknownMemberType]  # torch has no type
        start = 0
        for group in row:
            of_group = {name: tuple(column[start : start + group.candidates]) for name, column in columns.items()}
            found.append(of_group)
            start += len(group.completions)
        advance(len(row))
    return found


def weights_digest(model: nn.Module) -> str:
    """A hash of the model's parameters: numbers measured with other weights are not used again."""
    digest = hashlib.sha256()
    for name, parameter in sorted(unwrap(model).named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
