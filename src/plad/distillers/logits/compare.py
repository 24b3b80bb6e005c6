"""Comparing two models' predictions over the whole vocabulary without ever holding them for all positions at once.

Both models are scored up to the states before their output heads, [N, H] numbers. Heads and divergence are computed a
few positions at a time; in the backward pass they are computed again, so that no [N, V] tensor exists in either.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from plad.distillers.logits.divergences import log_softmax
from plad.scoring.attention import unwrap
from plad.scoring.head import head_logits, head_width
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

    def piece(some_states: Tensor, some_targets: Tensor, *parts: Tensor) -> Tensor:
        logits, logps = _predicted(student, some_states, some_targets)
        log_p, log_q = teacher.compare(parts, logits, temperature)
        return measure(log_p, log_q, logps)

    return _in_pieces(piece, (states, targets, *teacher.tensors()), student, elements)


def token_log_probs(student: nn.Module, states: Tensor, targets: Tensor, *, elements: int | None = None) -> Tensor:
    """[N] log-probabilities of tokens by the student's head, differentiable, in the same bounded memory."""

    def piece(some_states: Tensor, some_targets: Tensor) -> Tensor:
        return _predicted(student, some_states, some_targets)[1]

    return _in_pieces(piece, (states, targets), student, elements)


def _predicted(student: nn.Module, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The student's logits [C, V], in float32 or wider, and log-probabilities [C] of the tokens that stand there."""
    logits = head_logits(student, states)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(-1)


def _in_pieces(
    piece: Callable[..., Tensor], columns: Sequence[Tensor], student: nn.Module, elements: int | None
) -> Tensor:
    """`piece` of a few rows of all columns [N, ...] at a time; the first are the states, which have a gradient."""
    bound = elements or (CPU_ELEMENTS if columns[0].device.type == "cpu" else GPU_ELEMENTS)
    step = max(1, bound // head_width(student))
    head = cast(nn.Module, unwrap(student).get_output_embeddings())
    weights = [p for p in head.parameters() if p.requires_grad]
    apply = cast(Callable[..., Tensor], _InPieces.apply)  # pyright: ignore[reportUnknownMemberType]  # untyped
    return apply(piece, step, head, len(columns), *columns, *weights)


class _InPieces(torch.autograd.Function):
    """A function of rows, applied to a few at a time, of which nothing is kept but its result.

    Unlike a checkpoint a piece, it leaves no small object between two large ones, whose memory would be lost for the
    next; and a linear head's weight gradient is added up in place.
    """

    @staticmethod
    def forward(
        ctx: Any, piece: Callable[..., Tensor], step: int, head: nn.Module, width: int, *tensors: Tensor
    ) -> Tensor:
        columns = tensors[:width]
        ctx.piece, ctx.step, ctx.head, ctx.width = piece, step, head, width
        ctx.autocast, ctx.draws = _autocast(columns[0].device), _Draws.of(head, columns[0].device)
        ctx.save_for_backward(*tensors)
        out: Tensor | None = None
        for rows in _rows(len(columns[0]), step):
            with ctx.draws.at(rows.start):
                values = piece(*(column[rows] for column in columns))
            if out is None:
                out = values.new_empty(len(columns[0]), *values.shape[1:])
            out[rows] = values
        assert out is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        columns, weights = ctx.saved_tensors[: ctx.width], ctx.saved_tensors[ctx.width :]
        states_grad = torch.empty_like(columns[0])
        weight_grads = [torch.zeros_like(w) for w in weights]
        for rows in _rows(len(columns[0]), ctx.step):
            states = columns[0][rows].detach().requires_grad_()
            with torch.enable_grad(), ctx.autocast(), ctx.draws.at(rows.start), _Watched(ctx.head) as watched:
                out = ctx.piece(states, *(column[rows] for column in columns[1:]))
            if type(ctx.head) is nn.Linear:
                states_grad[rows], logits_grad = torch.autograd.grad(out, [states, watched.output], grads[0][rows])
                for weight, total in zip(weights, weight_grads, strict=True):
                    if weight.dim() == 2:
                        total.addmm_(logits_grad.to(total.dtype).T, states.detach().to(total.dtype))
                    else:
                        total += logits_grad.sum(0)
            else:
                states_grad[rows], *parts = torch.autograd.grad(out, [states, *weights], grads[0][rows])
                for total, part in zip(weight_grads, parts, strict=True):
                    total += part
        return None, None, None, None, states_grad, *[None] * (ctx.width - 1), *weight_grads


def _rows(n: int, step: int) -> list[slice]:
    """Slices of `step` rows that make up `n`; one empty one where there are none."""
    return [slice(start, start + step) for start in range(0, max(n, 1), step)]


def _autocast(device: torch.device) -> Callable[[], Any]:
    """The mixed precision that is on now, to be entered again."""
    on, dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
    return partial(torch.autocast, device.type, dtype=dtype, enabled=on)


@dataclass(frozen=True, slots=True)
class _Draws:
    """Random numbers of a head with dropout (an adapter's): the same ones whenever a piece is computed.

    Attributes:
        seed: of this call; None where nothing is drawn.
    """

    seed: int | None
    device: torch.device

    @staticmethod
    def of(head: nn.Module, device: torch.device) -> "_Draws":
        """Those of a head as it is, in training or not."""
        drops = any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in head.modules())
        return _Draws(int(torch.randint(2**62, ())) if drops else None, device)

    @contextmanager
    def at(self, row: int) -> Generator[None]:
        """While the piece from this row on is computed."""
        if self.seed is None:
            yield
            return
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices, device_type=self.device.type):  # pyright: ignore[reportUnknownMemberType]  # untyped
            torch.manual_seed(self.seed + row)  # pyright: ignore[reportUnknownMemberType]  # untyped
            yield


class _Watched:
    """Keeps what a module gives while the block runs."""

    output: Tensor

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> "_Watched":
        self.handle = self.module.register_forward_hook(self._keep)
        return self

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.output = output

    def __exit__(self, *_: object) -> None:
        self.handle.remove()
