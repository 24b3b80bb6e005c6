"""How much a text resembles a reference, by the states the student has of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def similarity(
    states: Tensor, lengths: Tensor, candidates: Tensor, references: Tensor, spans: Sequence[int] = (1, 2, 4, 8)
) -> Tensor:
    """The score of candidate texts against reference texts: an F-measure for every span length, summed.

        s(y^, y; x) = sum_n F_n(e(y^), e(y)),  F_n = 2 P_n R_n / (P_n + R_n)

    e(.) are the student's states of a text behind its prompt, scaled to unit norm, so that the cosine of two spans of n
    states is the mean of the cosines of their members. Where no span fits into one of the texts, or where precision or
    recall isn't positive, F_n is 0.

    Args:
        states: [N, H] of every token, text after text.
        lengths: [M] tokens of each text; they add up to N.
        candidates, references: [P] which texts are compared.
        spans: values of n.

    Returns:
        [P] scores from 0 to the number of spans.

    Source: PLaD (arXiv 2406.02886), Eq. 6-8, after SLiC (Zhao et al., 2022).
    """
    import torch
    from torch.nn import functional as F

    unit = F.normalize(states.to(torch.promote_types(states.dtype, torch.float32)), dim=-1)
    cosines = _padded(unit, lengths, candidates) @ _padded(unit, lengths, references).transpose(1, 2)
    total = cosines.new_zeros(len(candidates))
    for n in spans:
        precision, recall = precision_recall(cosines, lengths[candidates], lengths[references], n)
        both = (precision > 0) & (recall > 0)
        total = total + torch.where(both, 2 * precision * recall / torch.where(both, precision + recall, 1.0), 0.0)
    return total


def precision_recall(cosines: Tensor, rows: Tensor, columns: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """How well spans of n states find a match in the other text.

        P_n = mean over candidate spans of the best cosine with a reference span
        R_n = mean over reference spans of the best cosine with a candidate span

    Args:
        cosines: [P, L, T] of the candidates' states with the references', padded.
        rows, columns: [P] states of each candidate and each reference.
        n: states a span.

    Returns:
        [P] precision and [P] recall; 0 where one of the texts is shorter than n.

    Source: PLaD (arXiv 2406.02886), Eq. 7 and 8.
    """
    import torch

    pairs, height, width = cosines.shape
    if n > min(height, width):
        nothing = cosines.new_zeros(pairs)
        return nothing, nothing
    # a view of every run of n cosines along a diagonal: the members of one span beside those of the other
    steps = (height * width, width, 1, width + 1)
    runs = cosines.contiguous().as_strided((pairs, height - n + 1, width - n + 1, n), steps)
    spans = runs.mean(-1)
    in_rows = torch.arange(height - n + 1, device=cosines.device) + n <= rows[:, None]
    in_columns = torch.arange(width - n + 1, device=cosines.device) + n <= columns[:, None]
    spans = spans.masked_fill(~(in_rows[:, :, None] & in_columns[:, None]), float("-inf"))
    fits = in_rows[:, 0] & in_columns[:, 0]

    def mean(best: Tensor, inside: Tensor) -> Tensor:
        return best.masked_fill(~(inside & fits[:, None]), 0.0).sum(1) / inside.sum(1).clamp(min=1)

    return mean(spans.amax(2), in_rows), mean(spans.amax(1), in_columns)


def _padded(states: Tensor, lengths: Tensor, texts: Tensor) -> Tensor:
    """[P, longest, H] states of the texts; what stands behind a shorter one's end is another's."""
    import torch

    starts = lengths.cumsum(0) - lengths
    longest = int(lengths[texts].max()) if len(texts) else 0
    at = starts[texts][:, None] + torch.arange(longest, device=states.device)
    return states[at.clamp(max=max(len(states) - 1, 0))]
