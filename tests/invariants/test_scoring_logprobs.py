"""Log-probabilities from logits: exact, and lean."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from plad.scoring import logprobs
from plad.scoring.logprobs import log_probs

ROWS, VOCAB = 7, 11
# row 0 is used three times (once for the same token), row 4 never
SOURCES = torch.tensor([0, 1, 2, 0, 3, 5, 6, 0])
TARGETS = torch.tensor([4, 0, 10, 4, 2, 2, 9, 7])


@pytest.fixture(autouse=True, params=[1, 2, 3, 100], ids=lambda rows: f"{rows} rows a tile")
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "_TILE", request.param * VOCAB)


def logits(dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return (4 * torch.randn(ROWS, VOCAB, generator=draw, dtype=torch.float64)).to(dtype).requires_grad_()


def test_the_derivative_is_that_of_the_values() -> None:
    assert torch.autograd.gradcheck(lambda x: log_probs(x, SOURCES, TARGETS), (logits(),))


def test_values_and_gradients_equal_log_softmax() -> None:
    ours, theirs = logits(), logits()
    found, expected = log_probs(ours, SOURCES, TARGETS), theirs.log_softmax(-1)[SOURCES, TARGETS]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    weights = torch.linspace(-2, 3, len(SOURCES), dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-13)


def test_a_row_that_predicts_nothing_has_zero_gradient() -> None:
    x = logits()
    log_probs(x, SOURCES, TARGETS).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[4], torch.zeros(VOCAB, dtype=torch.float64))
    assert x.grad[3].abs().min() > 0


def test_the_logits_are_left_as_they_were() -> None:
    x = logits()
    before = x.detach().clone()
    log_probs(x, SOURCES, TARGETS).sum().backward()
    assert torch.equal(x, before)


def test_a_soft_cap_in_front_still_has_its_gradient() -> None:
    """tanh saves its output, the very logits, for its backward pass."""

    def capped(x: Tensor) -> Tensor:
        return log_probs(torch.tanh(x / 2) * 2, SOURCES, TARGETS)

    assert torch.autograd.gradcheck(capped, (logits(),))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_logits_are_normalised_in_float32(dtype: torch.dtype) -> None:
    ours, theirs = logits(dtype), logits(dtype)
    found, expected = log_probs(ours, SOURCES, TARGETS), theirs.float().log_softmax(-1)[SOURCES, TARGETS]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_extreme_logits_stay_finite() -> None:
    x = torch.tensor([[1e4, -1e4, 0.0], [float("-inf"), 0.0, 0.0]], requires_grad=True)
    found = log_probs(x, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(found, torch.tensor([0.0, -2e4, -0.6931472]))
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_no_tokens_give_no_values_and_a_zero_gradient() -> None:
    x = logits()
    none = torch.zeros(0, dtype=torch.long)
    log_probs(x, none, none).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


class _Sizes(TorchDispatchMode):
    """Records the elements of every newly allocated result."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self._storages: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in args:
            if isinstance(value, Tensor):
                self._storages[value.untyped_storage().data_ptr()] = value
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self._storages:
            self._storages[result.untyped_storage().data_ptr()] = result
            self.seen.append(result.numel())
        return result


def test_memory_is_one_tile_forward_and_one_gradient_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, vocab = 40, 500
    monkeypatch.setattr(logprobs, "_TILE", 4 * vocab)
    x = torch.randn(rows, vocab, requires_grad=True)
    tokens = torch.arange(rows)
    with _Sizes() as forward:
        value = log_probs(x, tokens, tokens).sum()
    assert max(forward.seen) <= 4 * vocab
    with _Sizes() as backward:
        torch.autograd.grad(value, x)  # accumulating into x.grad would copy what the recorder holds
    assert sorted(n for n in backward.seen if n > 4 * vocab) == [rows * vocab]
