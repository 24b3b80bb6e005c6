"""Divergences of the distillation baselines, by hand, at their ends, by property, and against TRL's function."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plad.distillers.logits.divergences import (
    FLOOR,
    forward_kl,
    generalized_jsd,
    js_of_student,
    js_of_teacher,
    log_softmax,
    mixture,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    total_variation,
)

LN2, LN3 = math.log(2), math.log(3)
Divergence = Callable[[Tensor, Tensor], Tensor]
EVERY: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "total_variation": total_variation,
    "js_of_teacher": lambda p, q: js_of_teacher(p, q, 0.3),
    "js_of_student": lambda p, q: js_of_student(p, q, 0.3),
    "jsd 0": lambda p, q: generalized_jsd(p, q, 0.0),
    "jsd 0.1": lambda p, q: generalized_jsd(p, q, 0.1),
    "jsd 0.9": lambda p, q: generalized_jsd(p, q, 0.9),
    "jsd 1": lambda p, q: generalized_jsd(p, q, 1.0),
    "skew_kl": lambda p, q: skew_kl(p, q, 0.1),
    "skew_reverse_kl": lambda p, q: skew_reverse_kl(p, q, 0.1),
}


def logs(*probabilities: float) -> Tensor:
    """Log-probabilities [V], the impossible at the floor."""
    return torch.tensor(probabilities, dtype=torch.float64).log().clamp_min(FLOOR)


logits = st.lists(st.floats(-8, 8), min_size=4, max_size=4)

# p = (3/4, 1/4), q = (1/4, 3/4): worked in every test below.
P, Q = logs(0.75, 0.25), logs(0.25, 0.75)


def test_forward_kl_worked_by_hand() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2."""
    assert forward_kl(P, logs(0.5, 0.5)).item() == pytest.approx(0.75 * LN3 - LN2)


def test_reverse_kl_worked_by_hand() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): 1/2 ln(2/3) + 1/2 ln 2 = ln 2 - 1/2 ln 3."""
    assert reverse_kl(P, logs(0.5, 0.5)).item() == pytest.approx(LN2 - 0.5 * LN3)


def test_total_variation_worked_by_hand() -> None:
    """1/2 (|3/4 - 1/4| + |1/4 - 3/4|) = 1/2; of distributions that share no token: 1."""
    assert total_variation(P, Q).item() == pytest.approx(0.5)
    assert total_variation(logs(1, 0), logs(0, 1)).item() == 1.0


def test_jensen_shannon_worked_by_hand() -> None:
    """beta = 1/2: m = (1/2, 1/2); both parts are 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2, and so is their mean.

    Distributions that share no token are ln 2 apart, and finite.
    """
    part = 0.75 * LN3 - LN2
    assert js_of_teacher(P, Q, 0.5).item() == pytest.approx(part)
    assert js_of_student(P, Q, 0.5).item() == pytest.approx(part)
    assert generalized_jsd(P, Q, 0.5).item() == pytest.approx(part)
    assert generalized_jsd(logs(1, 0), logs(0, 1), 0.5).item() == pytest.approx(LN2)


def test_a_lopsided_mixture_worked_by_hand() -> None:
    """p = (1, 0), q = (0, 1), the student's share 1/4: m = (3/4, 1/4).

    On teacher's text KL(p || m) = ln(4/3); on student's text KL(q || m) = ln 4.
    """
    p, q = logs(1, 0), logs(0, 1)
    assert js_of_teacher(p, q, 0.25).item() == pytest.approx(math.log(4 / 3))
    assert js_of_student(p, q, 0.25).item() == pytest.approx(math.log(4))


def test_generalized_jsd_worked_by_hand() -> None:
    """p = (1, 0), q = (0, 1), beta = 3/4: m = (3/4, 1/4); 3/4 ln(4/3) + 1/4 ln 4 = 2 ln 2 - 3/4 ln 3."""
    assert generalized_jsd(logs(1, 0), logs(0, 1), 0.75).item() == pytest.approx(2 * LN2 - 0.75 * LN3)


def test_skew_divergences_worked_by_hand() -> None:
    """p = (1, 0), q = (0, 1), skew 1/10.

    KL(p || 1/10 p + 9/10 q) = ln 10: finite where KL(p || q) is not. So is KL(q || 1/10 q + 9/10 p).
    """
    p, q = logs(1, 0), logs(0, 1)
    assert skew_kl(p, q, 0.1).item() == pytest.approx(math.log(10))
    assert skew_reverse_kl(p, q, 0.1).item() == pytest.approx(math.log(10))


def test_the_skew_is_the_share_of_the_first() -> None:
    """p = (3/4, 1/4), q = (1/4, 3/4), skew 3/4: 3/4 p + 1/4 q = (5/8, 3/8).

    KL(p || .) = 3/4 ln(6/5) + 1/4 ln(2/3). By symmetry skew reverse KL is the same number.
    """
    expected = 0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)
    assert skew_kl(P, Q, 0.75).item() == pytest.approx(expected)
    assert skew_reverse_kl(P, Q, 0.75).item() == pytest.approx(expected)


def test_temperature_flattens() -> None:
    """Logits (0, ln 9) are (1/10, 9/10); at temperature 2 they are (0, ln 3): (1/4, 3/4)."""
    made = torch.tensor([0.0, math.log(9)], dtype=torch.float64)
    assert log_softmax(made).exp().tolist() == pytest.approx([0.1, 0.9])
    assert log_softmax(made, 2.0).exp().tolist() == pytest.approx([0.25, 0.75])


def test_the_mixture_worked_by_hand() -> None:
    """0.8 (3/4, 1/4) + 0.2 (1/4, 3/4) = (0.65, 0.35)."""
    assert mixture(P, Q, 0.8).exp().tolist() == pytest.approx([0.65, 0.35])


# -- ends -----------------------------------------------------------------------------------------


@given(logits, logits)
def test_the_ends_of_the_generalized_jsd_are_the_two_kl(a: list[float], b: list[float]) -> None:
    p, q = (log_softmax(torch.tensor(x, dtype=torch.float64)) for x in (a, b))
    assert generalized_jsd(p, q, 0.0).item() == forward_kl(p, q).item()
    assert generalized_jsd(p, q, 1.0).item() == reverse_kl(p, q).item()


@given(logits, logits)
def test_the_ends_are_the_limits_of_the_scaled_interior(a: list[float], b: list[float]) -> None:
    p, q = (log_softmax(torch.tensor([x / 2 for x in v], dtype=torch.float64)) for v in (a, b))
    near = 1e-6
    assert generalized_jsd(p, q, near).item() / near == pytest.approx(forward_kl(p, q).item(), abs=0.02)
    assert generalized_jsd(p, q, 1 - near).item() / near == pytest.approx(reverse_kl(p, q).item(), abs=0.02)


@given(logits, logits)
def test_no_skew_is_plain_kl(a: list[float], b: list[float]) -> None:
    p, q = (log_softmax(torch.tensor(x, dtype=torch.float64)) for x in (a, b))
    assert skew_kl(p, q, 0.0).item() == forward_kl(p, q).item()
    assert skew_reverse_kl(p, q, 0.0).item() == reverse_kl(p, q).item()


@given(logits, logits)
def test_half_a_generalized_jsd_is_the_mean_of_the_two_parts(a: list[float], b: list[float]) -> None:
    """f-distill's beta is the student's share, GKD's the teacher's: they meet at beta and 1 - beta."""
    p, q = (log_softmax(torch.tensor(x, dtype=torch.float64)) for x in (a, b))
    parts = 0.3 * js_of_student(p, q, 0.3) + 0.7 * js_of_teacher(p, q, 0.3)
    assert generalized_jsd(p, q, 0.7).item() == pytest.approx(parts.item(), abs=1e-12)


# -- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@given(logits, logits)
def test_a_divergence_is_zero_between_equals_and_never_negative(name: str, a: list[float], b: list[float]) -> None:
    p, q = (log_softmax(torch.tensor(x, dtype=torch.float64)) for x in (a, b))
    assert EVERY[name](p, p).item() == pytest.approx(0, abs=1e-12)
    assert EVERY[name](p, q).item() >= -1e-12


@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_pulls_the_student_towards_the_teacher(name: str) -> None:
    """p = (3/4, 1/4), the student's logits (0, 0): going down the gradient, the first must rise and the second fall."""
    student = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    EVERY[name](P, log_softmax(student)).backward()
    assert student.grad is not None
    assert student.grad[0] < 0 < student.grad[1]


def test_the_gradient_of_forward_kl_is_the_difference_of_the_probabilities() -> None:
    """d KL(p || softmax z) / dz = q - p = (1/2 - 3/4, 1/2 - 1/4)."""
    student = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    forward_kl(P, log_softmax(student)).backward()
    assert student.grad is not None
    assert student.grad.tolist() == pytest.approx([-0.25, 0.25])


@pytest.mark.parametrize("name", EVERY)
def test_impossible_tokens_leave_numbers_and_gradients_finite(name: str) -> None:
    """A vocabulary whose padding has logits of minus infinity, in teacher and student."""
    student = torch.tensor([0.5, -0.5, float("-inf")], requires_grad=True)
    value = EVERY[name](log_softmax(torch.tensor([1.0, 0.0, float("-inf")])), log_softmax(student))
    value.backward()
    assert student.grad is not None
    assert bool(value.isfinite())
    assert bool(student.grad.isfinite().all())


# -- against TRL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_generalized_jsd_equals_trls(beta: float, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers and gradients a position. Around it, two things of TRL 1.16's trainer are not followed.

    - It divides the loss of a batch of the student's samples by the number of tokens that the data's batch had before
      it was replaced; here a batch is divided by its own tokens.
    - Its `seq_kd` is this divergence on the teacher's samples; here SeqKD is cross-entropy on them.
    """
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    torch.manual_seed(0)
    teacher = torch.randn(2, 3, 11, dtype=torch.float64)
    ours, theirs = (torch.randn_like(teacher).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    found = generalized_jsd(log_softmax(teacher, temperature), log_softmax(ours, temperature), beta)
    expected = GKDTrainer.generalized_jsd_loss(
        theirs, teacher, beta=beta, temperature=temperature, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)
