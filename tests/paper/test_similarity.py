"""The score function (Eq. 6-8), by hand, by property and against a slow reference."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plad.objectives.similarity import precision_recall, similarity

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]


def score(candidate: list[list[float]], reference: list[list[float]], *spans: int) -> float:
    states = torch.tensor(candidate + reference, dtype=torch.float64).view(-1, 2)
    lengths = torch.tensor([len(candidate), len(reference)])
    return similarity(states, lengths, torch.tensor([0]), torch.tensor([1]), spans).item()


def measures(cosines: list[list[float]], n: int) -> tuple[float, float]:
    table = torch.tensor([cosines], dtype=torch.float64)
    precision, recall = precision_recall(table, torch.tensor([table.shape[1]]), torch.tensor([table.shape[2]]), n)
    return precision.item(), recall.item()


def test_single_states_worked_by_hand() -> None:
    """Candidate: east, north; reference: east. Lengths of the vectors don't matter.

    P_1: best matches 1 and 0, mean 1/2.  R_1: best match of the one reference state 1.
    F_1 = 2 * 1/2 * 1 / (3/2) = 2/3.
    """
    assert score([EAST, NORTH], [EAST], 1) == pytest.approx(2 / 3)


def test_spans_of_two_worked_by_hand() -> None:
    """Cosines of 3 candidate states with 2 reference states; a span of 2 lies on a diagonal.

        1.0  0.2
        0.6  0.8      spans (0, 1): (1.0 + 0.8) / 2 = 0.9;  (1, 2): (0.6 + 0.4) / 2 = 0.5
        0.0  0.4

    P_2 = (0.9 + 0.5) / 2 = 0.7, R_2 = 0.9.
    """
    precision, recall = measures([[1.0, 0.2], [0.6, 0.8], [0.0, 0.4]], 2)
    assert (precision, recall) == pytest.approx((0.7, 0.9))


def test_the_same_words_in_another_order_match_singly_and_not_as_spans() -> None:
    """n = 1: every state has its match, F = 1. n = 2: (0 + 0) / 2 = 0."""
    assert score([EAST, NORTH], [NORTH, EAST], 1) == pytest.approx(1)
    assert score([EAST, NORTH], [NORTH, EAST], 2) == 0


def test_a_text_scores_one_against_itself_for_each_span_that_fits() -> None:
    states = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twice, lengths = torch.cat([states, states]), torch.tensor([7, 7])
    for spans, fitting in (((1,), 1), ((1, 2, 4, 8), 3), ((7,), 1), ((8,), 0), ((2, 3, 4), 3)):
        found = similarity(twice, lengths, torch.tensor([0]), torch.tensor([1]), spans)
        assert found.item() == pytest.approx(fitting), spans


def test_opposite_states_score_zero_and_never_blow_up() -> None:
    """P = R = -1 has no F-measure; P + R = 0 would divide by zero."""
    assert score([EAST], [WEST], 1) == 0
    assert score([EAST, WEST], [NORTH], 1) == 0


def test_an_empty_text_scores_zero() -> None:
    assert score([], [EAST], 1, 2) == score([EAST], [], 1) == score([], [], 1) == 0


def slow(candidate: list[Tensor], reference: list[Tensor], n: int) -> tuple[float, float] | None:
    """P_n and R_n, span by span: cosines of concatenated unit states. None where no span fits."""

    def spans(states: list[Tensor]) -> list[Tensor]:
        return [torch.cat([s / s.norm() for s in states[i : i + n]]) for i in range(len(states) - n + 1)]

    ours, theirs = spans(candidate), spans(reference)
    if not ours or not theirs:
        return None
    cosine = {(i, j): float(a @ b / (a.norm() * b.norm())) for i, a in enumerate(ours) for j, b in enumerate(theirs)}
    precision = math.fsum(max(cosine[i, j] for j in range(len(theirs))) for i in range(len(ours))) / len(ours)
    recall = math.fsum(max(cosine[i, j] for i in range(len(ours))) for j in range(len(theirs))) / len(theirs)
    return precision, recall


def slow_similarity(candidate: list[Tensor], reference: list[Tensor], spans: tuple[int, ...]) -> float:
    total = 0.0
    for n in spans:
        found = slow(candidate, reference, n)
        if found and min(found) > 0:
            precision, recall = found
            total += 2 * precision * recall / (precision + recall)
    return total


def draw(lengths: list[int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """States of texts that share some of their states, so that spans match in part."""
    make = torch.Generator().manual_seed(seed)
    pool = torch.randn(4, 6, generator=make, dtype=torch.float64)
    tokens = torch.randint(4, (sum(lengths),), generator=make)
    noise = torch.randn(sum(lengths), 6, generator=make, dtype=torch.float64)
    return (pool[tokens] + noise / 3).to(dtype)


texts = st.lists(st.integers(0, 10), min_size=2, max_size=5)


@given(texts, st.integers(0, 99), st.sets(st.integers(1, 9), min_size=1, max_size=4))
def test_every_pair_of_a_packed_row_scores_as_the_slow_reference_says(
    lengths: list[int], seed: int, wanted: set[int]
) -> None:
    spans = tuple(sorted(wanted))
    states = draw(lengths, seed)
    split = [list(text) for text in states.split(lengths)]
    pairs = list(itertools.product(range(len(lengths)), repeat=2))
    candidates, references = torch.tensor(pairs).unbind(1)
    found = similarity(states, torch.tensor(lengths), candidates, references, spans)
    assert found.tolist() == pytest.approx([slow_similarity(split[c], split[r], spans) for c, r in pairs], abs=1e-9)
    short = similarity(states.float(), torch.tensor(lengths), candidates, references, spans)
    assert short.dtype == torch.float32
    torch.testing.assert_close(short.double(), found, rtol=0, atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.integers(1, 4))
def test_swapping_the_texts_swaps_precision_and_recall(ours: int, theirs: int, seed: int, n: int) -> None:
    states = torch.nn.functional.normalize(draw([ours, theirs], seed), dim=-1)
    cosines = states[:ours] @ states[ours:].T
    precision, recall = measures(cosines.tolist(), n)
    assert measures(cosines.T.tolist(), n) == pytest.approx((recall, precision))
    expected = slow(list(states[:ours]), list(states[ours:]), n) or (0.0, 0.0)
    assert (precision, recall) == pytest.approx(expected)


def test_short_states_are_compared_in_float32() -> None:
    states, lengths, one, other = draw([5, 4], 3), torch.tensor([5, 4]), torch.tensor([0]), torch.tensor([1])
    short = similarity(states.bfloat16(), lengths, one, other)
    assert short.dtype == torch.float32
    torch.testing.assert_close(short.double(), similarity(states, lengths, one, other), rtol=0, atol=0.02)
