"""DPO, SLiC and SimPO, by hand and against TRL's own functions on the same tensors."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl import DPOTrainer
from trl.experimental.cpo import CPOTrainer

from plad.objectives.preference import DpoObjective, SimpoObjective, SlicObjective, dpo, slic
from plad.scoring.layout import Group
from plad.scoring.score import Scores
from plad.train.loss import TextLoss
from tests.support.measured import Texts, gradient, one, scores

PAIR: Texts = [[-1.0, -2.0], [-1.0, -1.0, -1.0, -2.0]]
LN3 = math.log(3)


def test_dpo_worked_by_hand() -> None:
    """-log sigmoid(0) = log 2 at the start; -log sigmoid(-log 3) = log(1 + 3) where the pair is 2 log 3 too close.

    beta = 0.5: chosen fell by log 3, rejected rose by log 3: 0.5 (-log 3 - log 3) = -log 3.
    """
    start, moved = torch.tensor([-2.0, -2.0 - LN3]), torch.tensor([-4.0, -4.0 + LN3])
    found = dpo(start, moved, torch.tensor([-2.0, -2.0]), torch.tensor([-4.0, -4.0]), beta=0.5)
    assert found.tolist() == pytest.approx([math.log(2), math.log(4)], rel=1e-6)


def test_dpo_of_sums_and_of_means_worked_by_hand() -> None:
    """log P+ = -3, log P- = -5; at the start -3 and -5 + 2 log 3: the rejected text fell by 2 log 3.

    sum:  beta = 0.5: -log sigmoid(0.5 * 2 log 3) = log(1 + 1/3).
    mean: the rejected text has 4 tokens: beta = 2: -log sigmoid(2 * 2 log 3 / 4) = log(1 + 1/3).
    """
    measured = scores(one(PAIR, reference_logp=[-3.0, -5.0 + 2 * LN3]))
    for beta, normalization in ((0.5, "sum"), (2.0, "mean")):
        out = TextLoss(DpoObjective(beta=beta, length_normalization=normalization))(measured)  # type: ignore[arg-type]
        assert out.losses.item() == pytest.approx(math.log(4 / 3))
        assert out.metrics["margin_gained"].item() == pytest.approx(2 * LN3 / (1 if normalization == "sum" else 4))


def test_dpo_pulls_the_pair_apart_with_a_force_that_fades() -> None:
    """d/d log P of -log sigmoid(beta delta) = -beta sigmoid(-beta delta): 0.1 / 2 at the start, for every token."""
    measured = scores(one(PAIR, reference_logp=[-3.0, -5.0]))
    found = gradient(measured, TextLoss(DpoObjective(beta=0.1, length_normalization="sum"))(measured))
    assert found == pytest.approx([-0.05] * 2 + [0.05] * 4)


def test_slic_worked_by_hand() -> None:
    """log P+ = -3, log P- = -3.5, delta = 1, lambda = 0.2: max(0, 1 + 3 - 3.5) + 0.2 * 3 = 0.5 + 0.6."""
    found = slic(torch.tensor([-3.0]), torch.tensor([-3.5]), beta=1.0, regularization=0.2)
    assert found.tolist() == pytest.approx([1.1])


def test_slic_regularises_in_the_unit_of_its_hinge() -> None:
    """sum: max(0, 3 + 3 - 5) + 3 lambda;  mean: max(0, 1 + 1.5 - 1.25) + 1.5 lambda;  lambda = 2."""
    for beta, normalization, expected in ((3.0, "sum", 1 + 6.0), (1.0, "mean", 1.25 + 3.0)):
        loss = TextLoss(SlicObjective(beta=beta, regularization=2.0, length_normalization=normalization))  # type: ignore[arg-type]
        assert loss(scores(one(PAIR))).losses.tolist() == [expected]


def test_simpo_worked_by_hand() -> None:
    """beta (mean P+ - mean P-) - gamma = 2 (-1.5 + 1.25) - 0.5 = -1: log(1 + e)."""
    out = TextLoss(SimpoObjective(beta=2.0, gamma=0.5, length_normalization="mean"))(scores(one(PAIR)))
    assert out.losses.item() == pytest.approx(math.log(1 + math.e))


def test_a_cross_entropy_term_goes_with_each_of_them() -> None:
    """Mean token cross-entropy of the chosen text: 1.5."""
    for section in (DpoObjective(sft_weight=0.2), SlicObjective(sft_weight=0.2), SimpoObjective(sft_weight=0.2)):
        measured = scores(one(PAIR, reference_logp=[-3.0, -5.0]))
        plain = TextLoss(section.model_copy(update={"sft_weight": 0.0}))
        added = TextLoss(section)(measured).losses - plain(measured).losses
        assert added.item() == pytest.approx(0.3)


# -- TRL ------------------------------------------------------------------------------------------


def drawn() -> tuple[Tensor, list[int], Tensor]:
    """Token log-probabilities of 5 pairs, their lengths, and [10] reference log-probabilities."""
    draw = torch.Generator().manual_seed(0)
    lengths = [4, 7, 1, 3, 9, 2, 5, 5, 6, 8]
    logps = -3 * torch.rand(sum(lengths), generator=draw)
    reference = logps.split(lengths)
    return logps, lengths, torch.stack([r.sum() for r in reference]) + torch.randn(10, generator=draw)


def pairs() -> Scores:
    """The same pairs as the core would measure them."""
    logps, lengths, reference = drawn()
    groups = [
        Group(f"g{i}", (1,), ((5,) * a, (5,) * b), values={"reference_logp": tuple(reference[i : i + 2].tolist())})
        for i, (a, b) in zip(range(0, 10, 2), zip(lengths[::2], lengths[1::2], strict=True), strict=True)
    ]
    return Scores(groups, logps)


def cpo(logps: Tensor, **settings: Any) -> Tensor:
    """TRL's CPO losses of [10] log-probabilities, chosen and rejected in turn."""
    trainer = SimpleNamespace(alpha=0.0, label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu"), **settings)
    return CPOTrainer.cpo_loss(trainer, logps[::2], logps[1::2])[0]  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("normalization", ["sum", "mean"])
def test_the_hinge_of_slic_equals_trls(normalization: Any) -> None:
    """TRL's relu(1 - beta delta) is max(0, 1/beta - delta) times beta."""
    measured = pairs()
    logps = measured.sums() if normalization == "sum" else measured.means()
    for beta in (1.0, 0.25):
        loss = TextLoss(SlicObjective(beta=1 / beta, regularization=0.0, length_normalization=normalization))
        expected = cpo(logps, loss_type="hinge", beta=beta)
        torch.testing.assert_close(beta * loss(measured).losses, expected, rtol=0, atol=1e-5)
        assert expected.max() > 0


def test_simpo_equals_trls() -> None:
    measured = pairs()
    for beta, gamma in ((2.0, 1.0), (0.1, 0.5)):
        found = TextLoss(SimpoObjective(beta=beta, gamma=gamma, length_normalization="mean"))(measured).losses
        expected = cpo(measured.means(), loss_type="simpo", beta=beta, simpo_gamma=gamma)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def trl_dpo(beta: float, loss_type: str) -> Tensor:
    """TRL's DPO loss, a mean over the pairs: its own function, given log-probabilities in the place of a model."""
    logps, lengths, reference = drawn()
    order = [*range(0, 10, 2), *range(1, 10, 2)]  # TRL's batch: chosen rows, then rejected ones
    texts = [logps.split(lengths)[i] for i in order]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(t), dtype=torch.long) for t in texts], batch_first=True)
    mask = torch.nn.functional.pad(mask, (1, 0))  # one prompt token
    zeros = torch.zeros_like(padded)
    outputs = SimpleNamespace(log_probs=padded, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    same = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=same,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        beta=beta,
        loss_types=[loss_type],
        loss_weights=[1.0],
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}
    inputs |= {"ref_chosen_logps": reference[::2], "ref_rejected_logps": reference[1::2]}
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(("loss_type", "normalization"), [("sigmoid", "sum"), ("sigmoid_norm", "mean")])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_equals_trls(loss_type: str, normalization: Any, beta: float) -> None:
    found = TextLoss(DpoObjective(beta=beta, length_normalization=normalization))(pairs()).losses.mean()
    torch.testing.assert_close(found, trl_dpo(beta, loss_type), rtol=0, atol=1e-5)


def test_the_configuration_makes_them() -> None:
    assert DpoObjective() == DpoObjective(beta=0.1, length_normalization="sum")
    assert SlicObjective() == SlicObjective(beta=1.0, regularization=1.0, length_normalization="sum")
    assert SimpoObjective() == SimpoObjective(beta=2.0, gamma=1.0, length_normalization="mean")
