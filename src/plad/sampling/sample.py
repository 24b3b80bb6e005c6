"""Sampling requests with any language model: through slots where its attention allows it, else one by one.

An encoder-decoder is sampled in batches.
"""

import contextlib
import copy
import inspect
import itertools
import logging
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plad.errors import PolicyError
from plad.sampling.cache import Span
from plad.sampling.draw import Draft, OnFinish, Request, begin, choose
from plad.sampling.encoder_decoder import sample_encoder_decoder
from plad.sampling.slots import Prompt, SlotSampler, by_prompt
from plad.scoring.attention import plan_attention, replaceable

log = logging.getLogger(__name__)

_CHECKED_TOKENS = 24


def sample(
    model: nn.Module,
    requests: Iterable[Request],
    *,
    slots: int,
    eos_ids: Collection[int],
    on_finish: OnFinish,
    prefill_tokens: int | None = None,
) -> None:
    """Sample an answer to every request; memory is bounded by `slots` and the longest request.

    An answer depends on its request alone: not on `slots`, on `prefill_tokens`, or on the other requests.

    Args:
        model: language model, with or without an adapter; left in the mode it came in.
        requests: read as they are needed; requests of one prompt side by side are computed once.
        slots: answers in progress at once.
        eos_ids: each of them ends an answer, and is kept in it.
        on_finish: called for each answer as it finishes, in no particular order.
        prefill_tokens: most prompt tokens a forward pass (one prompt of an encoder-decoder may have more).
            Default: 256 on CPU, 4096 on a GPU; 2048 on CPU for an encoder-decoder.

    Raises:
        PolicyError: the model's logits are not finite, or it keeps no key-value cache.
        ValueError: a prompt is empty.
    """
    unwrap = getattr(model, "get_base_model", None)  # of an adapter
    base = cast("PreTrainedModel", model if unwrap is None else unwrap())
    prompts = _checked(by_prompt(requests))
    first = next(prompts, None)
    if first is None:
        return
    prompts = itertools.chain([first], prompts)
    on_cpu = 2048 if base.config.is_encoder_decoder else 256
    budget = prefill_tokens or (on_cpu if base.device.type == "cpu" else 4096)
    with torch.inference_mode(), evaluating(model):
        if base.config.is_encoder_decoder:
            sample_encoder_decoder(
                base, prompts, slots=slots, prefill_tokens=budget, eos_ids=eos_ids, on_finish=on_finish
            )
        elif slots_agree(base, first[0]):
            with plan_attention(base):
                sampler = SlotSampler(base, slots=slots, prefill_tokens=budget, eos_ids=eos_ids, on_finish=on_finish)
                sampler.run(prompts)
        else:
            sample_one_by_one(base, prompts, eos_ids=eos_ids, on_finish=on_finish)


def _checked(prompts: Iterable[tuple[Prompt, list[Request]]]) -> Iterator[tuple[Prompt, list[Request]]]:
    for prompt, requests in prompts:
        if not prompt:
            raise ValueError(f"request {requests[0].key}: the prompt has no tokens")
        yield prompt, requests


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode inside the block, each module's own mode after it."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def slots_agree(model: PreTrainedModel, prompt: Prompt) -> bool:
    """Whether the slot sampler computes what the model itself computes.

    A model whose attention can't be replaced doesn't take part; any other is compared with its plain
    forward pass on the beginning of a real prompt, because a layer that keeps a state of its own
    (recurrent, convolutional) would be wrong without a word.
    """
    if not replaceable(model) or not _takes(model, "logits_to_keep"):
        log.info("%s: attention can't be replaced; answers are sampled one by one", type(model).__name__)
        return False
    head = prompt[:_CHECKED_TOKENS]
    ids = torch.tensor([[*head, *head[:1]]], device=model.device)
    plain = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -2:]
    try:
        with plan_attention(model):
            ours = _two_steps(model, head)
    except Exception as e:  # whatever a foreign model raises, it can still be sampled its own way
        log.warning("%s: %s; answers are sampled one by one, which is slower", type(model).__name__, e)
        return False
    error = float((ours - plain).abs().max() / plain.abs().max().clamp_min(1e-6))
    if error <= (1e-3 if plain.dtype.itemsize >= 4 else 5e-2):
        return True
    log.warning(
        "%s: slots differ from the plain forward pass by %.1e of the largest logit; "
        "answers are sampled one by one, which is slower",
        type(model).__name__,
        error,
    )
    return False


def _two_steps(model: PreTrainedModel, head: Prompt) -> Tensor:
    """Logits [2, V] after `head`, and after one more token (its first again), by way of slots."""
    sampler = SlotSampler(model, slots=2, prefill_tokens=len(head), eos_ids=(), on_finish=_ignore)
    sampler.cache.reserve(len(head) + 1)
    slot = sampler.slots[1]
    slot.prompt = head
    after_head = sampler.forward([], [(slot, Span(slot=1, start=0, stop=len(head), begin=0, end=len(head)))])
    slot.filled, draft = len(head), begin(Request("check", head, 2, 0.0, 0))
    draft.tokens.append(head[0])
    return torch.cat([after_head, sampler.forward([(slot, draft)], [])])


def _ignore(*_: object) -> None:
    pass


def _takes(model: PreTrainedModel, keyword: str) -> bool:
    return keyword in inspect.signature(model.forward).parameters


def sample_one_by_one(
    model: PreTrainedModel,
    prompts: Iterable[tuple[Prompt, list[Request]]],
    *,
    eos_ids: Collection[int],
    on_finish: OnFinish,
) -> None:
    """Sample through the model's own cache, one answer at a time; a prompt is computed once for all its answers.

    Raises:
        PolicyError: the model returns no key-value cache.
    """
    keep = {"logits_to_keep": 1} if _takes(model, "logits_to_keep") else {}
    for prompt, requests in prompts:
        ids = torch.tensor([prompt], device=model.device)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **keep)
        cache = getattr(out, "past_key_values", None)
        if cache is None:
            raise PolicyError(
                f"{type(model).__name__} returns no key-value cache", fix="use a model with attention layers"
            )
        drafts = [begin(request) for request in requests]
        tokens = choose(out.logits[0, -1:].expand(len(drafts), -1), drafts)
        for number, (draft, token) in enumerate(zip(drafts, tokens, strict=True), 1):
            if not draft.ends(token, eos_ids):
                _go_on(model, draft, cache if number == len(drafts) else copy.deepcopy(cache), eos_ids)
            on_finish(draft.request, tuple(draft.tokens), draft.seconds)


def _go_on(model: PreTrainedModel, draft: Draft, cache: Any, eos_ids: Collection[int]) -> None:
    """Finish an answer whose first token is chosen; `cache` is used up."""
    ended = False
    while not ended:
        last = torch.tensor([draft.tokens[-1:]], device=model.device)
        seen = last.new_ones(1, len(draft.request.prompt) + len(draft.tokens))
        logits = model(input_ids=last, attention_mask=seen, past_key_values=cache, use_cache=True).logits[0, -1:]
        ended = draft.ends(choose(logits, [draft])[0], eos_ids)
