"""Comparing two models' predictions over the whole vocabulary without ever holding them for all positions at once.

Both models are scored up to the states before their output heads, [N, H] numbers. Heads and divergence are computed a
few positions at a time; in the backward pass they are computed again, so that no [N, V] tensor exists in either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plad.objectives.distillation import log_softmax
from plad.scoring.attention import unwrap
from plad.scoring.head import head_logits
from plad.scoring.layout import Group
from plad.scoring.score import Route, score

CPU_ELEMENTS, GPU_ELEMENTS = 2**22, 2**25
"""Logits [positions, V] of one model that are worked on at a time: 16 MB on CPU, 128 MB elsewhere, in float32."""

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps the teacher's log-probabilities [C, V], the student's [C, V], and the student's log-probability [C] of the token
that stands there (at temperature 1) to [C] or [C, M] figures."""


class TeacherRows(Protocol):
    """A teacher's predictions of N completion tokens."""

    def at(self, index: Tensor) -> "TeacherRows":
        """Those of some tokens only."""
        ...

    def tensors(self) -> tuple[Tensor, ...]:
        """What they are made of, [N, ...] each, without gradient."""
        ...

    def compare(self, parts: tuple[Tensor, ...], student: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities of teacher and student over the same tokens or buckets of tokens.

        Args:
            parts: some rows of `tensors()`.
            student: [C, V] logits.

        Returns:
            [C, B] twice.
        """
        ...


class Teacher(Protocol):
    """Whatever predicts what a student should."""

    def rows(self, groups: Sequence[Group]) -> TeacherRows:
        """Predictions of every completion token of `groups`, in the order of groups, completions, tokens."""
        ...


@dataclass(frozen=True, slots=True)
class LiveTeacher:
    """A teacher model that reads the same groups as the student, without gradient.

    Attributes:
        model: on any device, in any type.
        route: how it scores groups.
    """

    model: nn.Module
    route: Route

    @torch.no_grad()
    def rows(self, groups: Sequence[Group]) -> "LiveRows":
        """The states before the head, on the teacher's device."""
        states = score(self.model, groups, route=self.route, states=True, logits=False).states
        assert states is not None
        return LiveRows(self.model, states)


@dataclass(frozen=True, slots=True)
class LiveRows:
    """States [N, H] of a teacher and the model whose head predicts from them."""

    model: nn.Module
    states: Tensor

    def at(self, index: Tensor) -> "LiveRows":
        """Those of some tokens only."""
        return LiveRows(self.model, self.states[index.to(self.states.device)])

    def tensors(self) -> tuple[Tensor, ...]:
        """The states."""
        return (self.states,)

    def compare(self, parts: tuple[Tensor, ...], student: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Over the tokens that both have rows for: vocabularies may be padded to different lengths."""
        with torch.no_grad():
            logits = head_logits(self.model, parts[0]).to(student.device, student.dtype)
            common = min(logits.shape[-1], student.shape[-1])
            teacher = log_softmax(logits[:, :common], temperature)
        return teacher, log_softmax(student[:, :common], temperature)


def compared(
    student: nn.Module,
    states: Tensor,
    teacher: TeacherRows,
    targets: Tensor,
    measure: Measure,
    *,
    temperature: float = 1.0,
    elements: int | None = None,
) -> Tensor:
    """Figures of N positions, differentiable in the student's states and in its head.

    Args:
        student: the model whose head predicts from `states`.
        states: [N, H], `Scores.states`.
        teacher: predictions of the same N tokens.
        targets: [N] the tokens that stand there.
        measure: what is computed of a few positions.
        temperature: of both softmaxes.
        elements: most logits of one model at a time; default: by device.

    Returns:
        [N] or [N, M], as `measure` gives them, in float32 or the student's own type where that is wider.
    """

    def piece(own_states: Tensor, own_targets: Tensor, *parts: Tensor) -> Tensor:
        logits, own = _predicted(student, own_states, own_targets)
        log_p, log_q = teacher.compare(parts, logits, temperature)
        return measure(log_p, log_q, own)

    return _in_pieces(piece, (states, targets, *teacher.tensors()), student, elements)


def token_log_probs(student: nn.Module, states: Tensor, targets: Tensor, *, elements: int | None = None) -> Tensor:
    """[N] log-probabilities of tokens by the student's head, differentiable, in the same bounded memory."""

    def piece(own_states: Tensor, own_targets: Tensor) -> Tensor:
        return _predicted(student, own_states, own_targets)[1]

    return _in_pieces(piece, (states, targets), student, elements)


def _predicted(student: nn.Module, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The student's logits [C, V], in float32 or wider, and log-probabilities [C] of the tokens that stand there."""
    logits = head_logits(student, states)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(-1)


def _in_pieces(
    piece: Callable[..., Tensor], columns: Sequence[Tensor], student: nn.Module, elements: int | None
) -> Tensor:
    """`piece` of a few rows of all columns [N, ...] at a time, forgotten after the forward and done again backward."""
    width = unwrap(student).config.get_text_config(decoder=True).vocab_size
    bound = elements or (CPU_ELEMENTS if columns[0].device.type == "cpu" else GPU_ELEMENTS)
    step = max(1, bound // width)
    again: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False, "determinism_check": "none"}
    pieces = zip(*(column.split(step) for column in columns), strict=True)
    return torch.cat([cast(Tensor, checkpoint(piece, *part, **again)) for part in pieces])
