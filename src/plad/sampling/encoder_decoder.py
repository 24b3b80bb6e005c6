"""Sampling with an encoder-decoder: prompts are encoded in batches, and each prompt once for all its answers."""

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plad.errors import PolicyError
from plad.policy.load import decoder_start
from plad.sampling.draw import Draft, OnFinish, Request, begin, choose
from plad.sampling.slots import Prompt
from plad.scoring.encoder_decoder import encode, reading, select

Batch = list[tuple[Prompt, list[Draft]]]


def sample_encoder_decoder(
    model: PreTrainedModel,
    prompts: Iterable[tuple[Prompt, list[Request]]],
    *,
    slots: int,
    prefill_tokens: int,
    eos_ids: Collection[int],
    on_finish: OnFinish,
) -> None:
    """Sample through the model's own cache, up to `slots` answers at a time.

    Args:
        prefill_tokens: most tokens of the prompts that are encoded together, padding included.

    Raises:
        PolicyError: the model returns no key-value cache, or names no start token.
    """
    start = decoder_start(model)
    for batch in _batches(prompts, slots, prefill_tokens):
        inputs = encode([prompt for prompt, _ in batch], model.device)
        starts = torch.tensor([start] * len(batch), device=model.device)
        output = model(**inputs, decoder_input_ids=starts, use_cache=True)
        if getattr(output, "past_key_values", None) is None:
            raise PolicyError(f"{type(model).__name__} returns no key-value cache", fix="use another encoder-decoder")
        drafts = [(row, draft) for row, (_, same) in enumerate(batch) for draft in same]
        parts = [drafts[i : i + slots] for i in range(0, len(drafts), slots)]
        for number, part in enumerate(parts, 1):
            read = reading(output, inputs)
            if number < len(parts):  # the cache is used up
                read["past_key_values"] = copy.deepcopy(read["past_key_values"])
            _answer(model, output.logits[:, -1], read, part, eos_ids, on_finish)


def _batches(prompts: Iterable[tuple[Prompt, list[Request]]], slots: int, tokens: int) -> Iterator[Batch]:
    """Prompts with at most `slots` answers and `tokens` encoder positions together, or one prompt with more."""
    batch: Batch = []
    answers = longest = 0
    for prompt, requests in prompts:
        longest = max(longest, len(prompt))
        if batch and (answers + len(requests) > slots or longest * (len(batch) + 1) > tokens):
            yield batch
            batch, answers, longest = [], 0, len(prompt)
        batch.append((prompt, [begin(request) for request in requests]))
        answers += len(requests)
    if batch:
        yield batch


def _answer(
    model: PreTrainedModel,
    logits: Tensor,
    read: dict[str, Any],
    drafts: Sequence[tuple[int, Draft]],
    eos_ids: Collection[int],
    on_finish: OnFinish,
) -> None:
    """Answer drafts, each with the row of its prompt in the encoded batch, whose first tokens have `logits` [G, V]."""
    going = [draft for _, draft in drafts]
    rows = _tensor([row for row, _ in drafts], logits)
    logits, read = logits[rows], select(read, rows)
    while True:
        kept: list[int] = []
        for i, (draft, token) in enumerate(zip(going, choose(logits, going), strict=True)):
            if draft.ends(token, eos_ids):
                on_finish(draft.request, tuple(draft.tokens), draft.seconds)
            else:
                kept.append(i)
        if not kept:
            return
        if len(kept) < len(going):
            going, read = [going[i] for i in kept], select(read, _tensor(kept, logits))
        last = _tensor([draft.tokens[-1:] for draft in going], logits)
        logits = model(**read, decoder_input_ids=last).logits[:, -1]


def _tensor(values: list[Any], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=like.device)
