"""Attention of packed groups: each prompt causally, each completion to its prompt and itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from plad.scoring.attention import Kernel
from plad.scoring.layout import Group


class SegmentPlan:
    """Which tokens of a row of packed groups see which.

    Two attention calls a group: the prompt over itself, and all its completions over the whole group, where a mask
    hides each completion from the others. Keys and values are read in place; masks are built once for all layers.

    Args:
        last_layer: index of the layer in which a prompt is read at its last token only; None to read all of it.
    """

    def __init__(self, groups: Sequence[Group], device: torch.device, last_layer: int | None = None) -> None:
        self._prompts = [len(group.prompt) for group in groups]
        self._branches = [group.branches for group in groups]
        self._groups = [group.tokens for group in groups]
        self._last_layer = last_layer
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._device = device

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        """Attention of one layer: query [1, heads, T, dim] -> [1, heads, T, dim]."""
        last = layer == self._last_layer
        # the tokens of a prompt whose output is wanted, and those before them; in the last layer one and the others
        unread = [prompt - 1 if last else 0 for prompt in self._prompts]
        sizes = [
            (skip, prompt - skip, n - prompt)
            for skip, prompt, n in zip(unread, self._prompts, self._groups, strict=True)
        ]
        # split, unlike slicing, has a backward that writes each gradient once instead of adding zero-padded copies
        queries = torch.split(query, [n for group in sizes for n in group], 2)
        keys, values = torch.split(key, self._groups, 2), torch.split(value, self._groups, 2)
        out: list[Tensor] = []
        for i, prompt in enumerate(self._prompts):
            own_keys, own_values = keys[i], values[i]
            skipped, prompts, completions = queries[3 * i : 3 * i + 3]
            out.append(value.new_zeros(1, query.shape[1], skipped.shape[2], value.shape[3]))
            out.append(kernel.causal(prompts, own_keys[:, :, :prompt], own_values[:, :, :prompt]))
            if completions.shape[2]:
                visible = self._visible(i, kernel.sliding_window)
                out.append(kernel.masked(completions, own_keys, own_values, visible))
        return torch.cat([o.transpose(1, 2) for o in out], 1).transpose(1, 2)

    def _visible(self, index: int, window: int | None) -> Tensor:
        """[completion tokens, tokens of the group]: true where a completion's token sees a token of its group."""
        prompt, branches = self._prompts[index], self._branches[index]
        if window is not None and window >= prompt + max(branches):
            window = None
        if (index, window) not in self._masks:
            owner = torch.tensor([-1] * prompt + [i for i, n in enumerate(branches) for _ in range(n)])
            position = torch.tensor([*range(prompt), *(prompt + j for n in branches for j in range(n))])
            seeing, at = owner[prompt:, None], position[prompt:, None]
            visible = ((owner == -1) | (owner == seeing)) & (position <= at)
            if window is not None:
                visible &= position > at - window
            self._masks[index, window] = visible.to(self._device)
        return self._masks[index, window]
