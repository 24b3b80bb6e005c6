"""Sampling from a mixture of two models, token by token: (1 - mix) student + mix teacher.

Both models read the same tokens in the same steps. Their keys and values share one cache, the teacher's layers under
numbers of their own.
"""

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plad.distillers.logits.divergences import log_softmax, mixture
from plad.errors import PolicyError
from plad.sampling.cache import StepPlan
from plad.sampling.draw import OnFinish, Request
from plad.sampling.sample import evaluating, sample_one_by_one, slots_agree
from plad.sampling.slots import SlotSampler, by_prompt
from plad.scoring.attention import Kernel, plan_attention, unwrap
from plad.scoring.last_layer import last_layer, read_at

_OFFSET = 10_000  # added to the numbers of the teacher's layers


@dataclass(frozen=True, slots=True)
class Mixed:
    """(1 - mix) student + mix teacher, two models of one vocabulary.

    Attributes:
        mix: the teacher's share.
        temperature: of both softmaxes, and that of every request.
    """

    student: nn.Module
    teacher: nn.Module
    mix: float
    temperature: float

    def logits(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits [N, V] whose softmax at the temperature is the mixture of both softmaxes at it."""
        teacher = teacher.to(student.device, torch.promote_types(student.dtype, torch.float32))
        student = student.to(teacher.dtype)
        common = min(student.shape[-1], teacher.shape[-1])
        log_q, log_p = (log_softmax(logits[..., :common], self.temperature) for logits in (student, teacher))
        return mixture(log_p, log_q, self.mix) * self.temperature


def sample_mixed(
    mixed: Mixed, requests: Iterable[Request], *, slots: int, eos_ids: Collection[int], on_finish: OnFinish
) -> None:
    """Sample an answer to every request from (1 - mix) q + mix p.

    An answer depends on its request alone, as with `sample`; the models are left in the mode they came in.

    Raises:
        PolicyError: a model is an encoder-decoder, or its logits are not finite.

    Source: MiniLLM (arXiv 2306.08543), section 2.2, teacher-mixed sampling.
    """
    models = unwrap(mixed.student), unwrap(mixed.teacher)
    if any(model.config.is_encoder_decoder for model in models):
        raise PolicyError(
            "samples of a mixture of teacher and student need decoder-only models",
            where="teacher_mix",
            fix="teacher_mix: 0 samples the student alone",
        )
    prompts = list(by_prompt(requests))
    if not prompts:
        return
    budget = 256 if models[0].device.type == "cpu" else 4096
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        for model in models:
            stack.enter_context(evaluating(model))
        if models[0].device == models[1].device and all(slots_agree(model, prompts[0][0]) for model in models):
            for model in models:
                stack.enter_context(plan_attention(model))
            sampler = _MixedSampler(models[0], slots=slots, prefill_tokens=budget, eos_ids=eos_ids, on_finish=on_finish)
            sampler.add(models[1], mixed)
            sampler.run(prompts)
        else:
            both = cast(PreTrainedModel, _Mixture(models, mixed))
            sample_one_by_one(both, prompts, eos_ids=eos_ids, on_finish=on_finish)


class _Shifted:
    """A step's plan for the second model: the same tokens, layers of their own in the cache."""

    def __init__(self, plan: StepPlan, last: int | None) -> None:
        self.plan = replace(plan, last=None if last is None else last + _OFFSET)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        return self.plan.attend(layer + _OFFSET, query, key, value, kernel)


class _MixedSampler(SlotSampler):
    """The slot sampler over two models at once."""

    def add(self, teacher: PreTrainedModel, mixed: Mixed) -> None:
        """Say what to mix in."""
        self.teacher, self.mixed, self.teacher_last = teacher, mixed, last_layer(teacher)

    def logits(self, ids: Tensor, positions: Tensor, read: Tensor, plan: StepPlan) -> Tensor:
        """[N, V] of the mixture."""
        student = super().logits(ids, positions, read, plan)
        with read_at(self.teacher, read, ids.shape[1]):
            teacher = self.teacher(
                input_ids=ids,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=read,
                plad_plan=_Shifted(plan, self.teacher_last),
            ).logits[0]
        return self.mixed.logits(student, teacher)


class _Mixture:
    """Two models that answer like one with a cache of both."""

    def __init__(self, models: tuple[PreTrainedModel, PreTrainedModel], mixed: Mixed) -> None:
        self.models, self.mixed, self.device = models, mixed, models[0].device

    def __call__(self, *args: Any, **kwargs: Any) -> SimpleNamespace:
        return self.forward(*args, **kwargs)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Any = (None, None), use_cache: bool = True
    ) -> SimpleNamespace:
        outs = [
            model(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                past_key_values=cache,
                use_cache=use_cache,
            )
            for model, cache in zip(self.models, past_key_values, strict=True)
        ]
        logits = self.mixed.logits(*(out.logits[:, -1:] for out in outs))
        return SimpleNamespace(logits=logits, past_key_values=tuple(out.past_key_values for out in outs))
