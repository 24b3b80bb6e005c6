"""Groups (one prompt, K completions) and the rows that hold several of them.

A row of two groups: prompt p1 p2 p3 with completions a1 a2 a3 and b1 b2, and prompt q1 q2 with completion c1 c2. Every
prompt stands there once, and no completion's last token does: it predicts nothing.

    index           0   1   2   3   4   5   6   7   8
    input_ids       p1  p2  p3  a1  a2  b1  q1  q2  c1
    position_ids    0   1   2   3   4   3   0   1   2       restart with a prompt, and behind it with each completion
    keep                    2   3   4   5       7   8       where something is predicted:
    predicted              a1   a2  a3  b2      c1  c2      p3 predicts a1 and b1 alike
                           b1

    targets         a1  a2  a3  b1  b2  c1  c2
    sources         0   1   2   0   3   4   5               which of `keep` predicts them

    seen by p3      x   x   x                               a prompt sees itself,
    seen by a2      x   x   x   x   x                       a completion its prompt and itself,
    seen by b1      x   x   x           x                   never its neighbour,
    seen by c1                              x   x   x       and nobody another group
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plad.errors import DataError


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and its K completions, as token ids.

    Attributes:
        id: names the group in messages.
        prompt: at least one token: its last one predicts the first token of every completion.
        completions: K >= 1 of them, end-of-sequence token included; an empty one scores 0.
        chosen: how many of them, from the first on, are preferred to others.
        pairs: which completion is preferred to which, as indices; empty: each chosen one to all the others.
        values: what was measured of each completion before training, by name.
        context: how many completions, at the end, are only read: they enter no loss and have no values.
    """

    id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    chosen: int = 1
    pairs: tuple[tuple[int, int], ...] = ()
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    context: int = 0

    def __post_init__(self) -> None:
        if not self.prompt:
            raise DataError("the prompt has no tokens", where=self.id, fix="start prompts with a beginning-of-sequence")
        if not self.completions:
            raise DataError("there is no completion to score", where=self.id)
        for name, values in self.values.items():
            if len(values) != self.candidates:
                raise DataError(f"{len(values)} values of {name} for {self.candidates} completions", where=self.id)

    @property
    def candidates(self) -> int:
        """Completions that enter the loss."""
        return len(self.completions) - self.context

    @property
    def preferences(self) -> tuple[tuple[int, int], ...]:
        """(better, worse) indices of completions: the pairs a loss is made of."""
        every = ((i, j) for i in range(self.chosen) for j in range(self.chosen, self.candidates))
        return self.pairs or tuple(every)

    @property
    def branches(self) -> tuple[int, ...]:
        """Tokens of each completion that the model reads: its last token predicts nothing."""
        return tuple(max(len(completion) - 1, 0) for completion in self.completions)

    @property
    def tokens(self) -> int:
        """Tokens the group takes in a row: the prompt once and every completion but its last token."""
        return len(self.prompt) + sum(self.branches)


def pack(groups: Sequence[Group], max_tokens: int | None) -> list[list[Group]]:
    """Cut groups, in their order, into rows of at most `max_tokens` tokens.

    Args:
        groups: in the order in which their scores are wanted.
        max_tokens: budget of one row; None gives every group a row of its own.

    Returns:
        Rows that together hold `groups` in order. A group bigger than the budget has a row of its own.
    """
    rows: list[list[Group]] = []
    room = 0
    for group in groups:
        if max_tokens is None or not rows or group.tokens > room:
            rows.append([])
            room = max_tokens or 0
        rows[-1].append(group)
        room -= group.tokens
    return rows


@dataclass(frozen=True, slots=True)
class Row:
    """Groups laid end to end, each as its prompt followed by its completions.

    Attributes:
        input_ids: [1, T].
        position_ids: [1, T]; they restart at 0 with a prompt and at the prompt's length with each of its completions.
        keep: [R] positions whose states are needed; a prompt's last one stands once for its K completions, and those of
            completions that are only read stand at the end.
        scored: how many of them, from the first on, need logits too.
        sources: [N] for every completion token, the index in `keep` of the position that predicts it.
        targets: [N] completion tokens, in the order of groups, completions, tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    keep: Tensor
    scored: int
    sources: Tensor
    targets: Tensor


def lay_out(groups: Sequence[Group], device: torch.device) -> Row:
    """Build the row of `groups`."""
    ids: list[int] = []
    positions: list[int] = []
    scored = sum(1 + sum(group.branches[: group.candidates]) for group in groups)
    keep: list[int] = []
    context: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    for group in groups:
        prompt = len(group.prompt)
        ids += group.prompt
        positions += range(prompt)
        last = len(keep)
        keep.append(len(ids) - 1)
        for index, (completion, read) in enumerate(zip(group.completions, group.branches, strict=True)):
            kept, first = (keep, 0) if index < group.candidates else (context, scored)
            if completion:
                sources += (last, *range(first + len(kept), first + len(kept) + read))
            kept += range(len(ids), len(ids) + read)
            ids += completion[:read]
            positions += range(prompt, prompt + read)
            targets += completion
    return Row(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        keep=torch.tensor([*keep, *context], device=device),
        scored=scored,
        sources=torch.tensor(sources, dtype=torch.long, device=device),
        targets=torch.tensor(targets, dtype=torch.long, device=device),
    )


def pad(sequences: Sequence[Sequence[int]], fill: int, device: torch.device) -> Tensor:
    """Stack token sequences, filled up on the right, where causal attention never looks: [K, longest]."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *[fill] * (longest - len(sequence))] for sequence in sequences], device=device)
