"""MiniLLM's rewards, returns, weights and clipped loss: by hand, and against a literal reading of the paper."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plad.distillers.logits.policy_gradient import clipped_policy_loss, importance, returns, rewards, whiten

texts = st.lists(st.tuples(st.floats(-9, -0.01), st.floats(-9, -0.01)), min_size=1, max_size=7)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_rewards_worked_by_hand() -> None:
    """log p = (-1, -2, -9), log q = (-2, -1, -1); over 0.5: (2, -2, -16); no more than 10 either way: (2, -2, -10)."""
    teacher, student = tensor(-1, -2, -9), tensor(-2, -1, -1)
    assert rewards(teacher, student, scaling=0.5, clip=None).tolist() == [2, -2, -16]
    assert rewards(teacher, student, scaling=0.5, clip=10).tolist() == [2, -2, -10]


def test_returns_worked_by_hand() -> None:
    """r = (1, 2, 4, 6). After the first token come 2 + 4 + 6 = 12 over 3 tokens, then 10 over 2, 6 over 1, nothing.

    With the own reward: 13 over 4, 12 over 3, 10 over 2, 6 over 1.
    Discounted by a half, without own: 2 + 4/2 + 6/4 = 5.5, 4 + 6/2 = 7, 6, 0.
    """
    r = tensor(1, 2, 4, 6)
    assert returns(r).tolist() == [4, 5, 6, 0]
    assert returns(r, normalize=False).tolist() == [12, 10, 6, 0]
    assert returns(r, own_reward=True).tolist() == [3.25, 4, 5, 6]
    assert returns(r, discount=0.5, normalize=False).tolist() == [5.5, 7, 6, 0]
    assert returns(r, discount=0.5, own_reward=True, normalize=False).tolist() == [1 + 5.5 / 2, 2 + 7 / 2, 4 + 6 / 2, 6]
    assert returns(tensor(3)).tolist() == [0]


def test_whitening_worked_by_hand() -> None:
    """(1, 3, 5, 7): mean 4, variance (9 + 1 + 1 + 9) / 4 = 5."""
    assert whiten(tensor(1, 3, 5, 7)).tolist() == pytest.approx([x / math.sqrt(5) for x in (-3, -1, 1, 3)])
    assert whiten(tensor(7)).tolist() == [0]


def test_importance_weights_worked_by_hand() -> None:
    """p = 1/2, q = 1/10, the teacher's share 1/4: (1/10) / (1/8 + 3/40) = 1/2; without mixing 1; all teacher's 1/5."""
    p, q = tensor(math.log(0.5)), tensor(math.log(0.1))
    assert importance(p, q, 0.25).item() == pytest.approx(0.5)
    assert importance(p, q, 0.0).item() == 1.0


def test_the_clipped_loss_worked_by_hand() -> None:
    """clip = 0.2, old log-probability 0, weights 1, so the ratio is exp(log q).

    ratio 1,   A = 2:   max(-2, -2) = -2                 gradient -A ratio = -2
    ratio 1.5, A = 2:   max(-3, -2.4) = -2.4             0: raised enough already
    ratio 1.5, A = -2:  max(3, 2.4) = 3                  +3: has to come down
    ratio 0.5, A = -2:  max(1, 1.6) = 1.6                0: lowered enough already
    """
    ratio, advantages = (1.0, 1.5, 1.5, 0.5), tensor(2, 2, -2, -2)
    logps = tensor(*map(math.log, ratio)).requires_grad_()
    loss = clipped_policy_loss(logps, torch.zeros(4).double(), advantages, torch.ones(4).double(), 0.2)
    assert loss.tolist() == pytest.approx([-2, -2.4, 3, 1.6])
    loss.sum().backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([-2, 0, 3, 0])


def test_importance_weights_scale_the_ratio_before_it_is_clipped() -> None:
    """w = 1/2, ratio 2: rho = 1, inside the clip; A = 1: -1, gradient -1. w = 1, ratio 2: clipped at 1.2."""
    logps = tensor(math.log(2), math.log(2)).requires_grad_()
    loss = clipped_policy_loss(logps, tensor(0, 0), tensor(1, 1), tensor(0.5, 1), 0.2)
    assert loss.tolist() == pytest.approx([-1, -1.2])
    loss.sum().backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([-1, 0])


def literal_return(p: list[float], q: list[float], t: int) -> float:
    """R_{t+1} of the paper, 0-based t: the mean over all later tokens of log p(y_k) / q(y_k) (0 after the last)."""
    later = [math.log(math.exp(p[k]) / math.exp(q[k])) for k in range(t + 1, len(p))]
    return sum(later) / len(later) if later else 0.0


@given(texts)
def test_returns_are_the_papers(text: list[tuple[float, float]]) -> None:
    p, q = [a for a, _ in text], [b for _, b in text]
    found = returns(rewards(tensor(*p), tensor(*q), scaling=1.0, clip=None))
    assert found.tolist() == pytest.approx([literal_return(p, q, t) for t in range(len(text))], abs=1e-9)


def test_both_parts_together_are_the_gradient_of_the_sequence_divergence() -> None:
    """What the decomposition promises, summed over every text of two tokens from a vocabulary of three.

    d/dz KL(q || p) over whole texts = E_q [ sum_t  d/dz KL(q(. | y<t) || p(. | y<t))  -  R_t d/dz log q(y_t | y<t) ],
    with R_t the sum of log p / q over the later tokens: the single-step part by its exact expectation, the long-range
    part by the policy gradient at ratio 1.
    """
    torch.manual_seed(0)
    size = 3
    # the teacher's logits: the first token's, the second's given the first
    first, second = torch.randn(size).double(), torch.randn(size, size).double()
    z1, z2 = (torch.randn(*shape).double().requires_grad_() for shape in ((size,), (size, size)))
    p1, p2, q1, q2 = (t.log_softmax(-1) for t in (first, second, z1, z2))
    joint_q, joint_p = q1[:, None] + q2, p1[:, None] + p2
    expected = torch.autograd.grad((joint_q.exp() * (joint_q - joint_p)).sum(), (z1, z2), retain_graph=True)
    loss = torch.zeros((), dtype=torch.float64)
    for a in range(size):
        for b in range(size):
            weight = joint_q[a, b].exp().detach()
            logps = torch.stack([q1[a], q2[a, b]])
            teacher = torch.stack([p1[a], p2[a, b]])
            advantage = returns(rewards(teacher, logps.detach(), scaling=1.0, clip=None), normalize=False)
            long = clipped_policy_loss(logps, logps.detach(), advantage, torch.ones(2).double(), 0.2)
            single = (q1.exp() * (q1 - p1)).sum() + (q2[a].exp() * (q2[a] - p2[a])).sum()
            loss = loss + weight * (long.sum() + single)
    found = torch.autograd.grad(loss, (z1, z2))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
