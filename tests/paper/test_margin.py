"""Margin calibration (Eq. 5) and the anchor, by hand and by property."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plad.errors import DataError
from plad.objectives.pairs import anchor
from plad.objectives.plad import MarginObjective, RankObjective, margin, rank
from plad.train.loss import TextLoss
from tests.support.measured import Texts, gradient, one, scores

nats = st.floats(-50, 0, allow_nan=False)


def objective(beta: float, normalization: Literal["sum", "mean"] = "sum", **more: object) -> TextLoss:
    return TextLoss(MarginObjective(beta=beta, length_normalization=normalization, **more))  # type: ignore[arg-type]


# -- Eq. 5 ----------------------------------------------------------------------------------------


def test_margin_loss_worked_by_hand() -> None:
    """beta = 2, log P+ = -3.

    s+ = 3, s- = 1, log P- = -4:  max(0, 2 (3 - 1) + 3 - 4) = 3: the margin is 4, the texts are 1 apart
    s+ = 3, s- = 1, log P- = -8:  max(0, 4 + 3 - 8) = 0: met
    s+ = 2, s- = 2, log P- = -3:  max(0, 0 + 3 - 3) = 0: alike, no margin
    s+ = 1, s- = 2, log P- = -2:  max(0, -2 + 3 - 2) = 0: the rejected text is better, it may be likelier by 2
    s+ = 1, s- = 2, log P- = -0.5: max(0, -2 + 3 - 0.5) = 0.5
    """
    chosen, rejected = torch.full((5,), -3.0), torch.tensor([-4.0, -8.0, -3.0, -2.0, -0.5])
    better, worse = torch.tensor([3.0, 3.0, 2.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0])
    assert margin(chosen, rejected, better, worse, beta=2.0).tolist() == [3.0, 0.0, 0.0, 0.0, 0.5]


@given(nats, nats, st.floats(0, 4), st.floats(0, 4), st.floats(0, 3))
def test_it_is_the_ranking_loss_with_the_margin_of_its_pair(c: float, r: float, a: float, b: float, k: float) -> None:
    chosen, rejected, better, worse = (torch.tensor([x], dtype=torch.float64) for x in (c, r, a, b))
    expected = rank(chosen, rejected, beta=k * (a - b)).item()
    assert margin(chosen, rejected, better, worse, beta=k).item() == pytest.approx(expected, abs=1e-9)


PAIR: Texts = [[-1.0, -2.0], [-1.0, -1.0, -1.0, -2.0]]


def test_frozen_scores_of_a_sum_and_of_a_mean_worked_by_hand() -> None:
    """s+ - s- = 1.5 - 0.5 = 1, beta = 3.

    sum:  log P+ = -3, log P- = -5:         max(0, 3 + 3 - 5) = 1
    mean: log P+ = -1.5, log P- = -1.25:    max(0, 3 + 1.5 - 1.25) = 3.25, gradient -1/2 a chosen token, 1/4 a rejected
    """
    measured = scores(one(PAIR, similarity=[1.5, 0.5]))
    out = objective(3.0)(measured)
    assert out.losses.tolist() == [1.0]
    assert out.metrics["required_margin"].tolist() == [3.0]
    assert out.metrics["margin"].tolist() == [2.0]
    out = objective(3.0, "mean")(measured)
    assert out.losses.tolist() == [3.25]
    assert gradient(measured, out) == [-0.5, -0.5, 0.25, 0.25, 0.25, 0.25]


def test_live_scores_are_those_of_the_states_against_the_context() -> None:
    """States of unit norm in a plane; chosen: east; rejected: north; reference: east.

    s+ = 1, s- = 0 (n = 1). beta = 2, log P+ = -1, log P- = -2: max(0, 2 + 1 - 2) = 1. The reference has no loss.
    """
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    measured = scores(one([[-1.0], [-2.0], [-9.0]], context=1), states=states)
    out = objective(2.0, scores="live", spans=(1,))(measured)
    assert out.losses.tolist() == [1.0]
    assert gradient(measured, out) == [-1.0, 1.0, 0.0]
    assert torch.autograd.grad(objective(2.0, scores="live")(measured).losses.sum(), states, allow_unused=True) == (
        None,
    ), "no gradient flows through the score"


def test_every_group_has_its_own_reference() -> None:
    """Second group: rejected is the reference itself, chosen orthogonal to it: beta (0 - 1) = -2; -2 + 1 - 0.5 < 0."""
    east, north = [1.0, 0.0], [0.0, 1.0]
    states = torch.tensor([east, north, east, east, north, north], dtype=torch.float64)
    groups = [one([[-1.0], [-2.0], [-9.0]], context=1), one([[-1.0], [-0.5], [-9.0]], context=1)]
    out = objective(2.0, scores="live", spans=(1,))(scores(*groups, states=states))
    assert out.metrics["required_margin"].tolist() == [2.0, -2.0]
    assert out.losses.tolist() == [1.0, 0.0]
    assert out.active.tolist() == [True, False]


def test_a_score_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(DataError, match="g2: similarity was not measured"):
        objective(1.0)(scores(one(PAIR)))
    with pytest.raises(DataError, match="needs states"):
        objective(1.0, scores="live")(scores(one(PAIR)))
    with pytest.raises(DataError, match="one reference"):
        objective(1.0, scores="live")(scores(one(PAIR), states=torch.zeros(6, 2)))


def test_the_configuration_makes_it() -> None:
    section = MarginObjective(beta=0.5, scores="live", spans=(1, 3), anchor_weight=0.2, sft_weight=0.1)
    made = TextLoss(section)
    assert made == objective(0.5, "mean", scores="live", spans=(1, 3), anchor_weight=0.2, sft_weight=0.1)
    assert made.states
    assert not TextLoss(MarginObjective()).states


# -- the anchor -----------------------------------------------------------------------------------


def test_the_anchor_worked_by_hand() -> None:
    """(-3 - -1)^2 / 2 = 2; where nothing has moved 0."""
    assert anchor(torch.tensor([-3.0, -1.0]), torch.tensor([-1.0, -1.0])).tolist() == [2.0, 0.0]


def test_an_anchored_hinge_stops_where_the_text_has_moved_by_one_over_the_weight() -> None:
    """The hinge pulls the rejected log P down with slope 1, the anchor of weight w holds with w |moved|.

    w = 0.25, mean over 2 tokens: log P- = -5 a token, log P_0 = -1: moved by 4 = 1 / w, forces cancel; the chosen text
    still rises with its slope of 1. Loss: hinge max(0, 9 + 1 - 5) = 5, anchor 0.25 * 16 / 2 = 2.
    """
    measured = scores(one([[-1.0], [-5.0, -5.0]], reference_logp=[-1.0, -2.0]))
    out = TextLoss(RankObjective(beta=9.0, length_normalization="mean", anchor_weight=0.25))(measured)
    assert out.losses.tolist() == [7.0]
    assert out.metrics["anchor"].tolist() == [8.0]
    assert gradient(measured, out) == [-1.0, 0.0, 0.0]


def test_an_anchored_pair_is_active_when_its_hinge_is_met() -> None:
    measured = scores(one([[-1.0], [-5.0]], reference_logp=[-1.0, -4.0]), one([[-1.0], [-5.0]], reference_logp=[0, -5]))
    out = TextLoss(RankObjective(beta=1.0, length_normalization="sum", anchor_weight=1.0))(measured)
    assert out.losses.tolist() == [0.5, 0.0]
    assert out.active.tolist() == [True, False]
    assert out.metrics["active"].tolist() == [0.0, 0.0], "the metric counts open hinges"


def test_an_anchor_needs_the_starting_student() -> None:
    with pytest.raises(DataError, match="reference_logp was not measured"):
        TextLoss(RankObjective(beta=1.0, length_normalization="sum", anchor_weight=1.0))(scores(one(PAIR)))
