"""Requests, their random streams, and the choice of the next token."""

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plad.errors import PolicyError


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to sample.

    Attributes:
        key: the caller's name for it.
        prompt: token ids, at least one.
        max_new_tokens: most tokens of the answer, end of sequence included.
        temperature: softmax temperature; 0 is greedy.
        seed: seeds the request's own random stream.
    """

    key: str
    prompt: tuple[int, ...]
    max_new_tokens: int
    temperature: float
    seed: int


OnFinish = Callable[[Request, tuple[int, ...], float], None]
"""Receives a finished request, its tokens (with the end of sequence, if it came) and its seconds."""


@dataclass(slots=True, eq=False)
class Draft:
    """A request being answered: the tokens so far, and a random stream that no other request draws from."""

    request: Request
    stream: random.Random
    started: float = field(default_factory=time.monotonic)
    tokens: list[int] = field(default_factory=list[int])

    @property
    def seconds(self) -> float:
        """Time since the prompt was taken up."""
        return time.monotonic() - self.started

    def ends(self, token: int, eos_ids: Collection[int]) -> bool:
        """Append a token; returns whether the answer is finished."""
        self.tokens.append(token)
        return token in eos_ids or len(self.tokens) >= self.request.max_new_tokens


def begin(request: Request) -> Draft:
    """An answer without tokens yet."""
    return Draft(request, random.Random(request.seed))


def choose(logits: Tensor, drafts: Sequence[Draft]) -> list[int]:
    """Choose the next token of every draft.

    The inverse of the cumulative distribution at one uniform number of the draft's own stream, so that
    the choice depends on the draft's logits and seed alone; the most likely token at temperature 0.

    Args:
        logits: [N, V], of the drafts in order.

    Returns:
        N token ids.

    Raises:
        PolicyError: logits are NaN or infinite.

    Source: PLaD, Eq. 1 (softmax with temperature).
    """
    best, greedy = logits.max(-1)
    temperatures = [d.request.temperature for d in drafts]
    if not bool(torch.isfinite(best).all()):
        raise PolicyError(
            "the model's logits are not finite",
            fix="use dtype float32 or bfloat16\ncheck that the model's weights are whole",
        )
    if not any(temperatures):
        return _ids(greedy)
    # Apple's GPUs have no float64.
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    draws = [(d.request.temperature or 1.0, d.stream.random()) for d in drafts]
    temperature, uniform = torch.tensor(draws, dtype=precise, device=logits.device).T[..., None]
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    cumulative = (wide / temperature.to(wide.dtype)).softmax(-1).cumsum(-1, dtype=precise)
    # The first token whose cumulative probability exceeds the draw has a probability above zero.
    first = torch.searchsorted(cumulative, cumulative[:, -1:] * uniform, right=True)
    sampled = _ids(first.squeeze(1).clamp_(max=logits.shape[-1] - 1))
    if all(temperatures):
        return sampled
    return [s if t else g for s, g, t in zip(sampled, _ids(greedy), temperatures, strict=True)]


def _ids(tokens: Tensor) -> list[int]:
    return tokens.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # torch: no type
