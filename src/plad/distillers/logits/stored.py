"""A teacher's predictions kept on disk: its k likeliest tokens at every position, and the probability of all others.

What remains beside the k tokens is one bucket, for teacher and student alike. A divergence over k + 1 buckets never
exceeds the one over the vocabulary, and is equal to it where teacher and student share the tail out in the same
proportions; with k = V - 1 it is the same. Nothing is renormalised: the tail's mass counts.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  # untyped
from torch import Tensor

from plad.distillers.logits.compare import LiveTeacher
from plad.distillers.logits.divergences import FLOOR, log_softmax
from plad.errors import PolicyError
from plad.rundir.atomic import atomic_dir
from plad.scoring.head import head_logits, head_width
from plad.scoring.layout import Group

SHARD = 2**16
"""Positions a file: 64 MB at k = 128."""
_STEP = 32  # positions whose whole predictions exist at a time
_INDEX = "index.json"


def store_teacher(
    teacher: LiveTeacher,
    groups: Sequence[Group],
    folder: Path,
    *,
    k: int,
    width: int | None = None,
    temperature: float,
    advance: Callable[[int], None] = lambda _: None,
    shard: int = SHARD,
) -> None:
    """Write the teacher's predictions of every completion token of `groups`, whole or not at all.

    Args:
        k: tokens kept a position; at most V - 1.
        width: tokens that the student predicts; those beyond are left out of the teacher's softmax, as those that only
            the student has are of the student's: vocabularies may be padded to different lengths. None: as the teacher.
        temperature: of the softmax, once and for all.
        advance: called with the number of groups done.
        shard: positions a file.
    """
    started = time.perf_counter()
    width = min(width or head_width(teacher.model), head_width(teacher.model))
    index: dict[str, tuple[int, int, int]] = {}
    kept: list[dict[str, Tensor]] = []
    files = filled = 0
    with atomic_dir(folder) as staging:
        for group in groups:
            rows = teacher.rows([group]).tensors()[0]
            largest = _join([_largest(teacher, part, k, width, temperature) for part in torch.split(rows, _STEP)])
            start = 0
            for completion in group.completions:
                stop = start + len(completion)
                index[_key(group.prompt, completion)] = (files, filled + start, len(completion))
                start = stop
            kept.append(largest)
            filled += len(rows)
            if filled >= shard:
                save_file(_join(kept), staging / _file(files))
                kept, filled, files = [], 0, files + 1
            advance(1)
        if kept:
            save_file(_join(kept), staging / _file(files))
        about = {"k": k, "width": width, "temperature": temperature, "seconds": time.perf_counter() - started}
        (staging / _INDEX).write_text(json.dumps({**about, "texts": index}))


def _file(number: int) -> str:
    return f"topk-{number:05d}.safetensors"


def _key(prompt: Sequence[int], completion: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps([list(prompt), list(completion)]).encode()).hexdigest()[:24]


def _join(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}


@torch.no_grad()
def _largest(teacher: LiveTeacher, states: Tensor, k: int, width: int, temperature: float) -> dict[str, Tensor]:
    """tokens [C, k], their log-probabilities [C, k], and the log-probability [C] of all others."""
    logits = head_logits(teacher.model, states)[:, :width]
    if k >= logits.shape[-1]:
        raise PolicyError(
            f"teacher and student predict {logits.shape[-1]} tokens, so that {k} can't be the likeliest of them",
            where="top_k",
            fix="give a smaller top_k",
        )
    logps = log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), temperature)
    values, tokens = logps.topk(k, -1)
    tail = logps.scatter(1, tokens, float("-inf")).logsumexp(-1).clamp_min(FLOOR)
    return {"tokens": tokens.int().cpu(), "logps": values.cpu(), "tail": tail.cpu()}


@dataclass(frozen=True, slots=True)
class StoredTeacher:
    """A teacher that is a folder; its files are mapped, not read.

    Attributes:
        temperature: at which its predictions were stored.
        width: tokens over which they were normalised.
        seconds: that storing them took.
    """

    temperature: float
    width: int
    seconds: float
    _texts: dict[str, tuple[int, int, int]]
    _folder: Path
    _open: dict[int, Any] = field(default_factory=dict[int, Any])

    @staticmethod
    def read(folder: Path) -> "StoredTeacher":
        """Open what `store_teacher` wrote."""
        index = json.loads((folder / _INDEX).read_text())
        return StoredTeacher(index["temperature"], index["width"], index["seconds"], index["texts"], folder)

    def rows(self, groups: Sequence[Group]) -> "StoredRows":
        """Predictions of every completion token of `groups`.

        Raises:
            PolicyError: a text isn't among those stored.
        """
        parts = [self._text(group, completion) for group in groups for completion in group.completions]
        joined = _join(parts)
        return StoredRows(joined["tokens"], joined["logps"], joined["tail"], self.temperature, self.width)

    def _text(self, group: Group, completion: tuple[int, ...]) -> dict[str, Tensor]:
        place = self._texts.get(_key(group.prompt, completion))
        if place is None:
            raise PolicyError(
                "the teacher's stored logits don't hold this text",
                where=group.id,
                fix="teacher_logits: live scores any text, the student's own samples included",
            )
        number, start, length = place
        if number not in self._open:
            self._open[number] = safe_open(self._folder / _file(number), "pt")
        stored = self._open[number]
        return {name: stored.get_slice(name)[start : start + length] for name in ("tokens", "logps", "tail")}


@dataclass(frozen=True, slots=True)
class StoredRows:
    """tokens [N, k], log-probabilities [N, k] and the tail's log-probability [N] of a teacher, on the CPU."""

    tokens: Tensor
    logps: Tensor
    tail: Tensor
    temperature: float
    width: int

    def at(self, index: Tensor) -> "StoredRows":
        """Those of some tokens only."""
        tokens, logps, tail = (part[index.to(part.device)] for part in self.tensors())
        return StoredRows(tokens, logps, tail, self.temperature, self.width)

    def tensors(self) -> tuple[Tensor, ...]:
        """The three of them."""
        return self.tokens, self.logps, self.tail

    def compare(self, parts: tuple[Tensor, ...], student: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Over the teacher's k tokens and the bucket of all others."""
        assert temperature == self.temperature
        tokens, logps, tail = (part.to(student.device) for part in parts)
        teacher = torch.cat([logps, tail[:, None]], 1).to(student.dtype)
        every = log_softmax(student[:, : self.width], temperature)
        rest = every.scatter(1, tokens.long(), float("-inf")).logsumexp(-1, keepdim=True)
        return teacher, torch.cat([every.gather(1, tokens.long()), rest], 1).clamp_min(FLOOR)
