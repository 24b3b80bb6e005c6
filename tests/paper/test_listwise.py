"""RRHF and LiPO over several candidates of a prompt, by hand and against a slow reference."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plad.objectives.listwise import LipoObjective, RrhfObjective, gains, lambda_weights, lipo, ordered, rrhf
from plad.scoring.layout import Group
from plad.train.loss import TextLoss, texts_of
from tests.support.measured import Texts, gradient, one, scores

FOUR: Texts = [[-1.0], [-2.0], [-3.0], [-4.0]]


def order(*groups: tuple[Group, list[float]]) -> list[tuple[int, int]]:
    better, worse = ordered(texts_of(scores(*groups), RrhfObjective().needs))
    return list(zip(better.tolist(), worse.tolist(), strict=True))


def gain(group: tuple[Group, list[float]]) -> list[float]:
    return gains(texts_of(scores(group), RrhfObjective().needs)).tolist()


# -- the order of a list --------------------------------------------------------------------------


def test_without_a_scorer_the_order_is_that_of_the_preferences() -> None:
    assert order(one(FOUR, 2)) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_a_scorer_orders_every_two_texts_but_ties() -> None:
    assert order(one(FOUR, 2, quality=[5.0, 1.0, 5.0, -2.0])) == [(0, 1), (0, 3), (1, 3), (2, 1), (2, 3)]


def test_every_prompt_of_a_batch_has_its_own_order() -> None:
    ranked, paired = one(FOUR[:2], quality=[1.0, 2.0]), one(FOUR[:3], 2)
    assert sorted(order(ranked, paired, ranked)) == [(1, 0), (2, 4), (3, 4), (6, 5)]


def test_gains_worked_by_hand() -> None:
    """Two chosen, two rejected: a chosen one ties with one and beats two of three: (1/2 + 1 + 1) / 3 = 5/6; a rejected
    one 1/6. Ranked 4 > 3 > 2 > 1: it beats all of three, two, one, none."""
    assert gain(one(FOUR, 2)) == pytest.approx([5 / 6, 5 / 6, 1 / 6, 1 / 6])
    assert gain(one(FOUR, 2, quality=[4, 3, 2, 1])) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert gain(one(FOUR[:2])) == [1.0, 0.0]
    assert gain(one(FOUR[:3], context=1)) == [1.0, 0.0, 0.0]


# -- RRHF -----------------------------------------------------------------------------------------


def test_rrhf_worked_by_hand() -> None:
    """The better one likelier: 0; less likely by 1.5: 1.5. No margin."""
    assert rrhf(torch.tensor([-1.0, -3.0]), torch.tensor([-1.5, -1.5])).tolist() == [0.0, 1.5]


def test_a_ranked_list_costs_the_sum_of_its_wrong_pairs_and_the_best_texts_cross_entropy() -> None:
    """Means a token -2, -1, -3; quality best first.

    (0, 1): -1 - -2 = 1; (0, 2): 0; (1, 2): 0. Cross-entropy of the best: 2. Loss 1 + 2; gradient of text 0, a token of
    two: (-1 - 1) / 2; of text 1: +1.
    """
    measured = scores(one([[-1.0, -3.0], [-1.0], [-3.0]], quality=[3, 2, 1]))
    out = TextLoss(RrhfObjective(length_normalization="mean", sft_weight=1.0))(measured)
    assert out.losses.tolist() == [3.0]
    assert gradient(measured, out) == [-1.0, -1.0, 1.0, 0.0]
    assert out.metrics["accuracy"].tolist() == pytest.approx([2 / 3])


def test_without_a_scorer_the_cross_entropy_is_the_mean_over_the_chosen_texts() -> None:
    """Chosen -1 and -2, rejected -3: no wrong pair; (1 + 2) / 2."""
    out = TextLoss(RrhfObjective(length_normalization="mean", sft_weight=1.0))(scores(one(FOUR[:3], 2)))
    assert out.losses.tolist() == [1.5]


def test_texts_of_equal_quality_have_no_order_and_no_hinge() -> None:
    out = TextLoss(RrhfObjective(length_normalization="mean", sft_weight=0.0))(
        scores(one(FOUR, quality=[1, 1, 1, 1]), one([[-3.0], [-1.0]]))
    )
    assert out.losses.tolist() == [0.0, 2.0]
    assert out.active.tolist() == [False, True]
    assert all(value.isfinite().all() for value in out.metrics.values())


# -- LiPO -----------------------------------------------------------------------------------------


def test_lambda_weights_worked_by_hand() -> None:
    """Best at place 1 and worst at place 2: |2^1 - 2^0| |1 / log 2 - 1 / log 3|."""
    found = lambda_weights(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1]), torch.tensor([2]))
    assert found.item() == pytest.approx(1 / math.log(2) - 1 / math.log(3))


def test_lipo_worked_by_hand() -> None:
    """Rewards 0 and log 3: log(1 + 3) times the weight; the other way round log(1 + 1/3)."""
    better, worse = torch.tensor([0.0, math.log(3)]), torch.tensor([math.log(3), 0.0])
    assert lipo(better, worse, torch.tensor([2.0, 1.0])).tolist() == pytest.approx([2 * math.log(4), math.log(4 / 3)])


def test_a_pair_is_a_weighted_logistic_loss() -> None:
    """K = 2, at the start rewards 0 and 0; the first text takes place 1: weight 1 / log 2 - 1 / log 3, loss log 2."""
    measured = scores(one([[-1.0, -1.0], [-5.0]], reference_logp=[-2.0, -5.0]))
    out = TextLoss(LipoObjective(beta=0.1, length_normalization="sum"))(measured)
    weight = 1 / math.log(2) - 1 / math.log(3)
    assert out.losses.tolist() == pytest.approx([weight * math.log(2)])
    assert gradient(measured, out) == pytest.approx([-0.05 * weight] * 2 + [0.05 * weight])


def slow_lipo(logps: list[float], reference: list[float], quality: list[float], beta: float) -> float:
    """LiPO-lambda of one list, pair by pair."""
    k = len(logps)
    rewards = [beta * (p - r) for p, r in zip(logps, reference, strict=True)]
    by_reward = sorted(range(k), key=lambda i: -rewards[i])
    tau = {text: place + 1 for place, text in enumerate(by_reward)}
    psi = [
        sum((quality[i] > quality[j]) + 0.5 * (quality[i] == quality[j]) for j in range(k) if j != i) / (k - 1)
        for i in range(k)
    ]
    total = 0.0
    for i, j in permutations(range(k), 2):
        if quality[i] > quality[j]:
            gain = abs((2 ** psi[i] - 1) - (2 ** psi[j] - 1))
            discount = abs(1 / math.log(1 + tau[i]) - 1 / math.log(1 + tau[j]))
            total += gain * discount * math.log(1 + math.exp(-(rewards[i] - rewards[j])))
    return total


number = st.floats(-9, 0).map(lambda x: round(x, 2))
lists = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.lists(number, min_size=k, max_size=k),
        st.lists(number, min_size=k, max_size=k),
        st.lists(st.integers(0, 3), min_size=k, max_size=k),
    )
)


@given(st.lists(lists, min_size=1, max_size=3), st.sampled_from([0.1, 1.0]))
def test_lists_of_a_batch_cost_what_the_slow_reference_says(
    batch: list[tuple[list[float], list[float], list[int]]], beta: float
) -> None:
    groups = [one([[p] for p in logps], reference_logp=ref, quality=list(map(float, q))) for logps, ref, q in batch]
    out = TextLoss(LipoObjective(beta=beta, length_normalization="sum"))(scores(*groups))
    expected = [slow_lipo(logps, ref, list(map(float, q)), beta) for logps, ref, q in batch]
    assert out.losses.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_weights_are_constants_of_the_loss() -> None:
    measured = scores(one(FOUR, reference_logp=[-2, -2, -2, -2], quality=[1, 2, 3, 4]))
    moved = gradient(measured, TextLoss(LipoObjective(beta=1.0, length_normalization="sum"))(measured))
    assert sum(moved) == pytest.approx(0.0)
    assert moved[0] > 0 > moved[3]


def test_the_configuration_makes_them() -> None:
    assert RrhfObjective() == RrhfObjective(length_normalization="mean", sft_weight=1.0)
    assert LipoObjective(beta=0.3) == LipoObjective(beta=0.3, length_normalization="sum")
