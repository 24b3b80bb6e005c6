"""Sampling from a mixture of two models: against a literal loop, and independent of everything but the request."""

import random

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from plad.distillers.samples.mixed import Mixed, sample_mixed
from plad.errors import PolicyError
from plad.sampling.draw import Request
from plad.sampling.sample import sample
from tests.support.tiny_models import tiny_model

V = 61
PROMPTS = [(5, 6, 7, 8), (9, 10), (11, 12, 13, 14, 15, 16), (5, 6, 9)]
EOS = 2


def models(family: str = "llama", **options: object) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student, and a teacher of another depth whose distributions are sharper."""
    student = tiny_model(family, V, dtype=torch.float64)
    teacher = tiny_model(family, V, layers=3, dtype=torch.float64, seed=1, **options)
    with torch.no_grad():
        teacher.get_output_embeddings().weight.mul_(30)
    return student, teacher


def requests(temperature: float = 1.0, n: int = 2) -> list[Request]:
    return [
        Request(f"{i}.{k}", prompt, 6, temperature, 100 * i + k) for i, prompt in enumerate(PROMPTS) for k in range(n)
    ]


def sampled(
    student: PreTrainedModel, teacher: PreTrainedModel, mix: float, temperature: float = 1.0, slots: int = 3
) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    sample_mixed(
        Mixed(student, teacher, mix, temperature),
        requests(temperature),
        slots=slots,
        eos_ids=(EOS,),
        on_finish=lambda request, tokens, seconds: found.__setitem__(request.key, tokens),
    )
    return found


@torch.no_grad()
def literal(student: PreTrainedModel, teacher: PreTrainedModel, mix: float, temperature: float, r: Request) -> Tensor:
    """Token by token, both models over the whole text; the inverse of the cumulative probability at one number each."""
    stream, tokens = random.Random(r.seed), []
    while len(tokens) < r.max_new_tokens and (not tokens or tokens[-1] != EOS):
        ids = torch.tensor([[*r.prompt, *tokens]])
        q, p = ((m(input_ids=ids).logits[0, -1] / temperature).softmax(-1) for m in (student, teacher))
        cumulative = ((1 - mix) * q + mix * p).cumsum(-1)
        tokens.append(int((cumulative <= cumulative[-1] * stream.random()).sum()))
    return torch.tensor(tokens)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neo"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_every_token_comes_from_the_mixture(family: str, temperature: float) -> None:
    """Slots for the first two families, the models' own caches for the third, whose attention can't be replaced."""
    student, teacher = models(family)
    found = sampled(student, teacher, 0.4, temperature)
    for request in requests(temperature):
        assert found[request.key] == tuple(literal(student, teacher, 0.4, temperature, request).tolist())


def test_an_answer_depends_on_its_request_alone() -> None:
    student, teacher = models()
    assert sampled(student, teacher, 0.4, slots=1) == sampled(student, teacher, 0.4, slots=8)


def test_a_vanishing_share_samples_the_student_and_a_large_one_does_not() -> None:
    student, teacher = models()
    alone: dict[str, tuple[int, ...]] = {}
    sample(
        student,
        requests(),
        slots=3,
        eos_ids=(EOS,),
        on_finish=lambda request, tokens, seconds: alone.__setitem__(request.key, tokens),
    )
    assert sampled(student, teacher, 1e-12) == alone
    assert sampled(student, teacher, 0.9) != alone


def test_modes_and_attention_are_left_as_they_were() -> None:
    student, teacher = models()
    student.train()
    before = [m.config._attn_implementation for m in (student, teacher)]
    sampled(student, teacher, 0.4)
    assert student.training
    assert not teacher.training
    assert [m.config._attn_implementation for m in (student, teacher)] == before
    assert not any(m._forward_pre_hooks for m in student.modules())


def test_no_requests_are_no_work() -> None:
    student, teacher = models()
    finished: list[object] = []
    sample_mixed(Mixed(student, teacher, 0.5, 1.0), [], slots=1, eos_ids=(), on_finish=lambda *a: finished.append(a))
    assert finished == []


def test_encoder_decoders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = models()
    monkeypatch.setattr(student.config, "is_encoder_decoder", True)
    with pytest.raises(PolicyError, match="teacher_mix: 0"):
        sampled(student, teacher, 0.4)
