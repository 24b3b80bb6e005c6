"""Encoder-decoder models: a prompt is encoded once, and all its completions are decoded from its states.

The decoder reads its start tokens once a prompt, which leaves the keys and values of the encoder's states in the
model's cache; the completions follow as a batch that reads them. The head is given the predicting positions alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from plad.policy.load import decoder_start
from plad.scoring.attention import unwrap
from plad.scoring.head import Wanted, read_head_at, recomputes
from plad.scoring.layout import Group, pad


def encode(prompts: Sequence[Sequence[int]], device: torch.device) -> dict[str, Tensor]:
    """The encoder's inputs: prompts [G, S], padded on the right and masked where their lengths differ."""
    ids = pad(prompts, prompts[0][0], device)
    if len({len(prompt) for prompt in prompts}) == 1:
        return {"input_ids": ids}
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def reading(output: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """What the decoder reads of a batch that was encoded: its states, and the cache where there is one.

    Args:
        output: of the model for the batch; its cache grows as the decoder goes on.
        inputs: the encoder's, as `encode` made them.
    """
    read: dict[str, Any] = {k: v for k, v in inputs.items() if k == "attention_mask"}
    read["encoder_outputs"] = BaseModelOutput(last_hidden_state=output.encoder_last_hidden_state)
    cache = output.past_key_values
    return {**read, "use_cache": False} if cache is None else {**read, "use_cache": True, "past_key_values": cache}


def select(read: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """What the decoder reads of some rows [N] of the batch; the cache is cut in place."""
    rows_read = dict(read)
    rows_read["encoder_outputs"] = BaseModelOutput(last_hidden_state=read["encoder_outputs"].last_hidden_state[rows])
    if "attention_mask" in read:
        rows_read["attention_mask"] = read["attention_mask"][rows]
    if read["use_cache"]:
        read["past_key_values"].batch_select_indices(rows)
    return rows_read


def shared(model: nn.Module, base: PreTrainedModel, groups: Sequence[Group], wanted: Wanted) -> list[Tensor]:
    """[N, ...] each: every prompt encoded once, its completions decoded from its states."""
    device, start = base.device, decoder_start(base)
    inputs = encode([group.prompt for group in groups], device)
    starts = torch.tensor([start] * len(groups), device=device)
    # a checkpointed layer drops its cache, so that a completion reads the encoder's states themselves
    checkpointed = recomputes(base)
    last = torch.arange(1, len(groups) + 1, device=device) * len(start) - 1
    completions = [completion for group in groups for completion in group.completions]
    read_by_decoder = [completion[:-1] for completion in completions]
    # the head is applied once, to the states of both runs: its gradient is a whole vocabulary's
    once = any(read_by_decoder) and not checkpointed
    first = Wanted(logps=False, states=True) if once else wanted
    read, output = read_head_at(
        model, base, last, first, **inputs, decoder_input_ids=starts, use_cache=not checkpointed
    )
    owners = [g for g, group in enumerate(groups) for _ in group.completions]
    owner = _long(owners, device)
    if checkpointed:
        return _in_one_pass(model, base, start, completions, wanted, select(reading(output, inputs), owner))
    targets = _long((token for completion in completions for token in completion), device)
    if not once:
        return read(
            _long((g for g, completion in zip(owners, completions, strict=True) if completion), device), targets
        )
    (before,) = read(torch.arange(len(groups), device=device), targets[:0])
    rows = pad(read_by_decoder, start[-1], device)
    at = _inside(read_by_decoder, rows.shape[1], device)
    following = select(reading(output, inputs), owner)
    read, _ = read_head_at(model, base, at, wanted, before=before, **following, decoder_input_ids=rows)
    # a completion's first token is predicted by its prompt, its others by the rows
    order: list[int] = []
    other = len(groups)
    for g, completion, others in zip(owners, completions, read_by_decoder, strict=True):
        order += [g, *range(other, other + len(others))] if completion else []
        other += len(others)
    return read(_long(order, device), targets)


def separate(model: nn.Module, base: PreTrainedModel, group: Group, wanted: Wanted) -> list[Tensor]:
    """[N, ...] each, of one group: every completion with its own copy of the prompt, encoded anew."""
    prompts = torch.tensor([group.prompt] * len(group.completions), device=base.device)
    inputs = {"input_ids": prompts, "use_cache": False}
    return _in_one_pass(model, base, decoder_start(base), group.completions, wanted, inputs)


def _in_one_pass(
    model: nn.Module,
    base: PreTrainedModel,
    start: tuple[int, ...],
    completions: Sequence[tuple[int, ...]],
    wanted: Wanted,
    inputs: dict[str, Any],
) -> list[Tensor]:
    """[N, ...] each, of completions [K] by one pass without a cache over decoder rows that begin with the start."""
    device, skip = base.device, len(start) - 1
    read_by_decoder = [(*start, *completion[:-1]) for completion in completions]
    rows = pad(read_by_decoder, start[-1], device)
    positions = [
        k * rows.shape[1] + skip + i for k, completion in enumerate(completions) for i in range(len(completion))
    ]
    at = _long(positions, device)
    read, _ = read_head_at(model, base, at, wanted, **inputs, decoder_input_ids=rows)
    targets = _long((token for completion in completions for token in completion), device)
    return read(torch.arange(len(at), device=device), targets)


def plain_logits(model: nn.Module, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """[tokens, V] logits that predict one completion, by the model's plain forward of one pair of sequences."""
    base = unwrap(model)
    start = decoder_start(base)
    rows = torch.tensor([[*start, *completion]], device=base.device)
    ids = torch.tensor([list(prompt)], device=base.device)
    return model(input_ids=ids, decoder_input_ids=rows, use_cache=False).logits[0, len(start) - 1 : -1]


def _inside(rows: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Flattened positions of the tokens of rows that are padded to `width`."""
    return _long((k * width + i for k, row in enumerate(rows) for i in range(len(row))), device)


def _long(values: Iterable[int], device: torch.device) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long, device=device)
