"""Ranking calibration (Eq. 4) and cross-entropy, by hand, by property and against a slow reference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plad.errors import DataError
from plad.objectives.base import ObjectiveOut
from plad.objectives.plad import RankObjective, rank
from plad.objectives.sft import SftObjective, sft
from plad.scoring.layout import Group
from plad.scoring.score import Scores
from plad.train.loss import TextLoss

nats = st.floats(-50, 0, allow_nan=False)
margins = st.floats(0, 5, allow_nan=False)
Texts = list[list[list[float]]]
"""Groups of completions of token log-probabilities."""
pair_texts: st.SearchStrategy[Texts] = st.lists(
    st.lists(st.lists(st.floats(-9, -0.01), max_size=4), min_size=2, max_size=2), min_size=1, max_size=4
)


def scores(texts: Texts, chosen: list[int] | None = None) -> Scores:
    """What the core would give for completions with these token log-probabilities; the first is chosen by default."""
    flat = [logp for group in texts for completion in group for logp in completion]
    logps = torch.tensor(flat, dtype=torch.float64, requires_grad=True)
    groups = [
        Group(f"g{i}", (1,), tuple((5,) * len(completion) for completion in group), n)
        for i, (group, n) in enumerate(zip(texts, chosen or [1] * len(texts), strict=True))
    ]
    return Scores(groups, logps)


def ranking(beta: float, normalization: str, sft_weight: float) -> TextLoss:
    return TextLoss(RankObjective(beta=beta, length_normalization=normalization, sft_weight=sft_weight))  # type: ignore[arg-type]


def gradient(measured: Scores, out: ObjectiveOut) -> Tensor:
    """Gradient of the sum of the losses in every token's log-probability."""
    return torch.autograd.grad(out.losses.sum(), measured.logps)[0]


# -- Eq. 4, the function --------------------------------------------------------------------------


def test_ranking_loss_worked_by_hand() -> None:
    """beta = 1.

    log P+ = -3, log P- = -3:  max(0, 1 + 3 - 3) = 1: no preference costs the margin
    log P+ = -2, log P- = -4:  max(0, 1 + 2 - 4) = max(0, -1) = 0: margin met
    log P+ = -2, log P- = -3:  max(0, 1 + 2 - 3) = 0: margin met exactly
    log P+ = -5, log P- = -4:  max(0, 1 + 5 - 4) = 2: wrong order costs more than the margin
    """
    chosen, rejected = torch.tensor([-3.0, -2.0, -2.0, -5.0]), torch.tensor([-3.0, -4.0, -3.0, -4.0])
    assert rank(chosen, rejected, beta=1.0).tolist() == [1.0, 0.0, 0.0, 2.0]


def test_ranking_gradient_worked_by_hand() -> None:
    """d max(0, beta - c + r): (-1, +1) where the loss is positive, (0, 0) where the margin is met, met exactly too."""
    chosen = torch.tensor([-3.0, -2.0, -2.0], requires_grad=True)
    rejected = torch.tensor([-3.0, -4.0, -3.0], requires_grad=True)
    rank(chosen, rejected, beta=1.0).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == [-1.0, 0.0, 0.0]
    assert rejected.grad.tolist() == [1.0, 0.0, 0.0]


@given(nats, nats, margins)
def test_the_gradient_raises_the_chosen_and_lowers_the_rejected_or_is_zero(c: float, r: float, beta: float) -> None:
    chosen, rejected = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (c, r))
    loss = rank(chosen, rejected, beta=beta)
    loss.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == ((-1.0, 1.0) if loss.item() > 0 else (0.0, 0.0))


@given(nats, nats, margins)
def test_a_pair_and_its_swap_cost_two_margins_or_the_greater_loss(c: float, r: float, beta: float) -> None:
    """Let d = |c - r|. Both hinges open, d <= beta: (beta - d) + (beta + d). Else one is 0, the other beta + d."""
    chosen, rejected = torch.tensor([c], dtype=torch.float64), torch.tensor([r], dtype=torch.float64)
    both = rank(chosen, rejected, beta=beta) + rank(rejected, chosen, beta=beta)
    distance = abs(c - r)
    assert both.item() == pytest.approx(2 * beta if distance <= beta else beta + distance, abs=1e-9)


@given(nats, nats, margins, margins)
def test_the_loss_rises_with_the_margin_and_never_faster(c: float, r: float, beta: float, more: float) -> None:
    chosen, rejected = torch.tensor([c], dtype=torch.float64), torch.tensor([r], dtype=torch.float64)
    low, high = (rank(chosen, rejected, beta=b).item() for b in (beta, beta + more))
    assert 0 <= low <= high <= low + more + 1e-9


@given(nats, margins, st.floats(0, 10))
def test_a_met_margin_costs_nothing(r: float, beta: float, beyond: float) -> None:
    chosen = torch.tensor([r + beta + beyond + 1e-9], dtype=torch.float64)
    assert rank(chosen, torch.tensor([r], dtype=torch.float64), beta=beta).item() == 0.0


# -- Eq. 4, the objective -------------------------------------------------------------------------

PAIR: Texts = [[[-1.0, -2.0], [-1.0, -1.0, -1.0, -2.0]]]


def test_the_sum_of_a_text_worked_by_hand() -> None:
    """log P+ = -1 - 2 = -3, log P- = -1 - 1 - 1 - 2 = -5, beta = 3: max(0, 3 + 3 - 5) = 1."""
    out = ranking(3.0, "sum", 0.0)(scores(PAIR))
    assert out.losses.tolist() == [1.0]
    assert out.active.tolist() == [True]
    assert out.metrics["margin"].tolist() == [2.0]


def test_the_mean_of_a_text_worked_by_hand() -> None:
    """log P+ / 2 = -1.5, log P- / 4 = -1.25, beta = 1: max(0, 1 + 1.5 - 1.25) = 1.25.

    Length turns the order round: by the sum the chosen text is likelier, by the mean the rejected one.
    """
    out = ranking(1.0, "mean", 0.0)(scores(PAIR))
    assert out.losses.tolist() == [1.25]
    assert out.metrics["chosen_logp"].tolist() == [-1.5]
    assert out.metrics["rejected_logp"].tolist() == [-1.25]
    assert out.metrics["margin"].tolist() == [-0.25]
    assert out.metrics["accuracy"].tolist() == [0.0]
    assert out.metrics["active"].tolist() == [1.0]
    assert ranking(1.0, "sum", 0.0)(scores(PAIR)).metrics["accuracy"].tolist() == [1.0]


def test_the_gradient_of_a_mean_is_shared_by_its_tokens() -> None:
    """-1/2 for each of the 2 chosen tokens, +1/4 for each of the 4 rejected ones; of the sum: -1 and +1."""
    measured = scores(PAIR)
    mean = gradient(measured, ranking(1.0, "mean", 0.0)(measured))
    assert mean.tolist() == [-0.5, -0.5, 0.25, 0.25, 0.25, 0.25]
    total = gradient(measured, ranking(3.0, "sum", 0.0)(measured))
    assert total.tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0, 1.0]


def test_the_cross_entropy_term_worked_by_hand() -> None:
    """Mean token cross-entropy of the chosen text: (1 + 2) / 2 = 1.5; weight 0.2 adds 0.3, for the sum as for the mean.

    mean: 1.25 + 0.3 = 1.55;  sum, beta 3: 1 + 0.3 = 1.3;  sum, beta 1: margin 2 is met, 0 + 0.3 = 0.3, and active.
    Gradient of the last: -0.2 / 2 = -0.1 for a chosen token, 0 for a rejected one.
    """
    cases = [(1.0, "mean", 1.55), (3.0, "sum", 1.3), (1.0, "sum", 0.3)]
    for beta, normalization, expected in cases:
        out = ranking(beta, normalization, 0.2)(scores(PAIR))
        assert out.losses.item() == pytest.approx(expected, abs=1e-12)
        assert out.active.tolist() == [True]
    measured = scores(PAIR)
    out = ranking(1.0, "sum", 0.2)(measured)
    assert gradient(measured, out).tolist() == pytest.approx([-0.1, -0.1, 0, 0, 0, 0])
    assert out.metrics["active"].tolist() == [0.0], "the metric counts open hinges"


def slow_rank(texts: Texts, beta: float, normalization: str, sft_weight: float) -> list[float]:
    """Eq. 4 in plain Python, one pair at a time."""
    losses = []
    for chosen, rejected in texts:
        loss = 0.0
        if chosen and rejected:
            c, r = math.fsum(chosen), math.fsum(rejected)
            if normalization == "mean":
                c, r = c / len(chosen), r / len(rejected)
            loss = max(0.0, beta - c + r)
        if chosen:
            loss += sft_weight * -math.fsum(chosen) / len(chosen)
        losses.append(loss)
    return losses


@given(pair_texts, margins, st.sampled_from(["sum", "mean"]), st.sampled_from([0.0, 0.3]))
def test_pairs_cost_what_the_slow_reference_says(texts: Texts, beta: float, norm: str, sft_weight: float) -> None:
    out = ranking(beta, norm, sft_weight)(scores(texts))
    assert out.losses.tolist() == pytest.approx(slow_rank(texts, beta, norm, sft_weight), abs=1e-9)
    assert all(not value.requires_grad and value.shape == (len(texts),) for value in out.metrics.values())


@given(pair_texts, margins, st.sampled_from(["sum", "mean"]))
def test_an_inactive_pair_has_no_loss_and_no_gradient_and_an_active_one_has_both(
    texts: Texts, beta: float, norm: str
) -> None:
    measured = scores(texts)
    out = ranking(beta, norm, 0.0)(measured)
    per_text = gradient(measured, out).split(measured.lengths.tolist())
    for i, active in enumerate(out.active.tolist()):
        moved = bool(per_text[2 * i].any()) or bool(per_text[2 * i + 1].any())
        assert active == (out.losses[i].item() > 0) == moved


@given(pair_texts)
def test_with_cross_entropy_every_pair_is_active(texts: Texts) -> None:
    assert ranking(1.0, "mean", 0.1)(scores(texts)).active.all()


@pytest.mark.parametrize("norm", ["sum", "mean"])
@pytest.mark.parametrize("texts", [[[[], [-1.0]]], [[[-1.0], []]], [[[], []]]], ids=["chosen", "rejected", "both"])
def test_a_pair_with_an_empty_text_costs_nothing_and_is_never_nan(texts: Texts, norm: str) -> None:
    measured = scores(texts)
    out = ranking(1.0, norm, 0.0)(measured)
    assert out.losses.tolist() == [0.0]
    assert out.active.tolist() == [False]
    assert not gradient(measured, out).any()
    assert all(value.isfinite().all() for value in out.metrics.values())


def test_a_loss_that_is_not_a_number_is_active_so_that_the_trainer_sees_it() -> None:
    assert ranking(1.0, "sum", 0.0)(scores([[[math.nan], [-1.0]]])).active.tolist() == [True]


def test_several_rejected_texts_worked_by_hand() -> None:
    """Margin 1. The chosen text scores -2; against -4 the margin is met (1 + 2 - 4 < 0), against -2.5 it lacks 0.5,
    against -1 it lacks 2. The group costs their mean, 2.5 / 3; two of three pairs are active and in order."""
    out = ranking(1.0, "sum", 0.0)(scores([[[-2.0], [-4.0], [-2.5], [-1.0]], [[-1.0], [-3.0]]]))
    assert out.losses.tolist() == pytest.approx([2.5 / 3, 0.0])
    assert out.active.tolist() == [True, False]
    assert out.metrics["active"].tolist() == pytest.approx([2 / 3, 0.0])
    assert out.metrics["accuracy"].tolist() == pytest.approx([2 / 3, 1.0])
    assert out.metrics["rejected_logp"].tolist() == pytest.approx([-2.5, -3.0])


def test_a_group_costs_the_mean_of_all_its_pairs() -> None:
    chosen, rejected = [[-2.0, -1.0], [-0.3]], [[-1.0], [-0.5, -0.1, -0.2], [-3.0]]
    for norm in ("sum", "mean"):
        loss = ranking(0.7, norm, 0.3)
        together = loss(scores([[[-9.0], [-1.0]], [*chosen, *rejected], [[-1.0], [-9.0]]], [1, 2, 1]))
        alone = [loss(scores([[c, r]])) for c in chosen for r in rejected]
        assert together.losses[1].item() == pytest.approx(sum(out.losses.item() for out in alone) / 6)
        for name, value in together.metrics.items():
            assert value[1].item() == pytest.approx(sum(out.metrics[name].item() for out in alone) / 6), name


@pytest.mark.parametrize("chosen", [0, 2])
def test_ranking_refuses_groups_with_nothing_to_rank(chosen: int) -> None:
    with pytest.raises(DataError, match="a chosen and a rejected text"):
        ranking(1.0, "mean", 0.0)(scores([[[-1.0], [-2.0]]], [chosen]))


def test_every_prompt_weighs_the_same() -> None:
    assert ranking(1.0, "sum", 0.0).weight(Group("g", (1,), ((1, 2, 3), (1,)))) == 1.0


# -- cross-entropy --------------------------------------------------------------------------------


def test_cross_entropy_worked_by_hand() -> None:
    """A text of probability 1/8 costs log 8; a certain one nothing."""
    assert sft(torch.tensor([-math.log(8), 0.0])).tolist() == pytest.approx([math.log(8), 0.0])


def test_a_batch_costs_the_mean_of_its_tokens_however_long_the_texts() -> None:
    """Tokens -1 -2 | -3, and -6: losses 6 and 6, weights 3 and 1, batch (6 + 6) / (3 + 1) = 3 = mean(1, 2, 3, 6)."""
    measured, objective = scores([[[-1.0, -2.0], [-3.0]], [[-6.0]]]), TextLoss(SftObjective())
    out = objective(measured)
    groups = [Group("a", (1,), ((5, 5), (5,))), Group("b", (1,), ((5,),))]
    assert out.losses.tolist() == [6.0, 6.0]
    assert [objective.weight(g) for g in groups] == [3.0, 1.0]
    assert out.metrics["nll"].tolist() == [2.0, 6.0]
    assert out.active.tolist() == [True, True]
    assert gradient(measured, out).tolist() == [-1.0] * 4


def test_an_empty_completion_costs_nothing_and_is_never_nan() -> None:
    measured = scores([[[]], [[-2.0], []]])
    out = TextLoss(SftObjective())(measured)
    assert out.losses.tolist() == [0.0, 2.0]
    assert out.active.tolist() == [False, True]
    assert out.metrics["nll"].tolist() == [0.0, 2.0]
    assert gradient(measured, out).tolist() == [-1.0]


# -- the configured objective ---------------------------------------------------------------------


def test_the_configuration_names_the_objective() -> None:
    assert TextLoss(RankObjective(beta=0.5, length_normalization="sum", sft_weight=0.1)) == ranking(0.5, "sum", 0.1)


def test_the_papers_equation_is_the_default_up_to_its_length_normalisation() -> None:
    assert TextLoss(RankObjective.model_validate({})) == ranking(1.0, "mean", 0.0)
