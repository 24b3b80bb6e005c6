"""The model's output head: read where a token is predicted, skipped, or applied to states that were kept."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from plad.errors import PolicyError
from plad.scoring.attention import unwrap
from plad.scoring.layout import Group
from plad.scoring.logprobs import log_probs

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""By how much two ways to the same logits or log-probabilities may differ: above rounding, far below a mistake."""

Read = Callable[[Tensor, Tensor], list[Tensor]]
"""Maps [N] positions (among those kept) and [N] the tokens they predict to what is wanted of these tokens."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured of a completion token, in this order: its log-probability, the state that predicts it."""

    logps: bool
    states: bool


def recomputes(base: PreTrainedModel) -> bool:
    """Whether layers are computed again in the backward pass of the model as it is now (gradient checkpointing).

    Each such layer decides by its own mode, not by the model's.
    """
    if not base.is_activation_checkpointing:
        return False
    return any(module.training and getattr(module, "gradient_checkpointing", False) for module in base.modules())


def accepted(base: PreTrainedModel) -> frozenset[str]:
    """Names of the keywords of the model's forward."""
    return frozenset(inspect.signature(base.forward).parameters)


def head_width(model: nn.Module) -> int:
    """Tokens that the model predicts, those that only pad its vocabulary included."""
    return text_config(unwrap(model), decoder=True).vocab_size


def text_config(base: PreTrainedModel, *, decoder: bool = False) -> PretrainedConfig:
    """The config of the part of the model that reads text, or of its decoder."""
    return base.config.get_text_config(decoder=decoder)  # pyright: ignore[reportUnknownMemberType]  # untyped


def read_head(
    model: nn.Module, base: PreTrainedModel, keep: Tensor, wanted: Wanted, *, scored: int | None = None, **inputs: Any
) -> tuple[Read, Any]:
    """Run the model and read its head at the positions `keep` [R] of every sequence of the batch.

    Args:
        wanted: without log-probabilities the head is given nothing to compute.
        scored: where states are wanted too, how many positions, from the first on, need log-probabilities; what is read
            of the others is not defined. None for all.
        inputs: keywords of the model's forward.

    Returns:
        The reading, over B * R flattened positions, and the model's output.

    Raises:
        PolicyError: states are wanted of a model that has no output head, or doesn't call it once.
    """
    selects = "logits_to_keep" in accepted(base)
    captured: list[Tensor] = []

    def capture(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        captured.append(args[0] if selects else args[0][:, keep])
        most = scored if selects else None
        return (args[0][:, : most if wanted.logps else 0], *args[1:])

    hooked = wanted.states or not wanted.logps
    with _head(base).register_forward_pre_hook(capture) if hooked else nullcontext():
        output = model(**inputs, logits_to_keep=keep) if selects else model(**inputs)
    if hooked and len(captured) != 1:
        raise PolicyError(f"{type(base).__name__} calls its output head {len(captured)} times: no states can be kept")
    states = captured[0].flatten(0, 1) if wanted.states else None
    logits = (output.logits if selects else output.logits[:, keep]).flatten(0, 1) if wanted.logps else None
    return _reading(logits, states), output


def read_head_at(
    model: nn.Module, base: PreTrainedModel, at: Tensor, wanted: Wanted, *, before: Tensor | None = None, **inputs: Any
) -> tuple[Read, Any]:
    """Run the model and read its head at the positions `at` [R] of the flattened batch: no other passes through it.

    Args:
        wanted: without log-probabilities the head is given nothing to compute.
        before: [F, H] states of an earlier run, which pass through the head in front of this one's.
        inputs: keywords of the model's forward.

    Returns:
        The reading, over F + R positions, and the model's output, its logits being those of these positions.

    Raises:
        PolicyError: the model has no output head, or doesn't call it once.
    """
    captured: list[Tensor] = []

    def narrow(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        states = args[0].flatten(0, 1)[at]
        captured.append(states if before is None else torch.cat([before, states]))
        return (captured[-1][None] if wanted.logps else captured[-1][None, :0], *args[1:])

    with _head(base).register_forward_pre_hook(narrow):
        output = model(**inputs)
    if len(captured) != 1:
        raise PolicyError(f"{type(base).__name__} calls its output head {len(captured)} times: it can't be narrowed")
    logits = output.logits.flatten(0, 1) if wanted.logps else None
    return _reading(logits, captured[0] if wanted.states else None), output


def _reading(logits: Tensor | None, states: Tensor | None) -> Read:
    """What is wanted of positions whose logits [up to R, V] and states [R, H] are known."""

    def read(sources: Tensor, targets: Tensor) -> list[Tensor]:
        columns = [] if logits is None else [log_probs(logits, sources.clamp(max=len(logits) - 1), targets)]
        return columns if states is None else [*columns, states[sources]]

    return read


def head_logits(model: nn.Module, states: Tensor) -> Tensor:
    """The logits [..., V] that the model's own head makes of states [..., H], its scaling and soft cap included.

    Only where `check_head` has passed are they known to be the model's.

    Raises:
        PolicyError: the model has no output head.
    """
    base = unwrap(model)
    config = text_config(base, decoder=True)
    logits = _head(base)(states)
    bias = getattr(base, "final_logits_bias", None)  # BART
    if bias is not None:
        logits = logits + bias.squeeze(0)
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


@torch.no_grad()
def check_head(model: nn.Module, group: Group) -> None:
    """Make sure that `head_logits` gives the model's own logits.

    Args:
        group: any one; its prompt is read.

    Raises:
        PolicyError: it doesn't.
    """
    base = unwrap(model)
    ids = torch.tensor([group.prompt], device=base.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if base.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :1]
    captured: list[Tensor] = []
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with _head(base).register_forward_pre_hook(lambda _module, args: captured.append(args[0])):
            expected = model(**inputs, use_cache=False).logits
        logits = head_logits(model, captured[0]) if len(captured) == 1 else None
    finally:
        for module, training in modes:
            module.training = training
    if logits is not None and logits.shape == expected.shape:
        difference = (logits - expected).abs().max().item()
        if difference <= TOLERANCE.get(base.dtype, 1e-1):
            return
        reason = f"the largest difference is {difference:.2g}"
    else:
        reason = f"it was called {len(captured)} times" if logits is None else "it gives another number of logits"
    raise PolicyError(
        f"the output head of {type(base).__name__}, applied to its states, doesn't give its logits: {reason}",
        fix="use a student whose logits are its head's output, scaled or soft-capped at most",
    )


def _head(base: PreTrainedModel) -> nn.Module:
    head = cast(nn.Module | None, base.get_output_embeddings())
    if head is None:
        raise PolicyError(f"{type(base).__name__} has no output head", fix="use a language model")
    return head
