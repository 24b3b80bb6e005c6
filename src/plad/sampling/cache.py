"""The bounded key-value cache of the slot sampler, and the attention plan of one step over it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from plad.scoring.attention import Kernel


class SlotCache:
    """Keys and values of every layer, [slots, kv_heads, capacity, dim] each, allocated when a layer is first seen."""

    def __init__(self, slots: int) -> None:
        self.slots, self.capacity = slots, 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer; `key` and `value` [1, kv_heads, T, dim] give the shape of new ones."""
        stored = self._layers.get(layer)
        if stored is None:
            # Zeros, because masked positions are multiplied by weight 0, and 0 * NaN is NaN.
            shapes = [(self.slots, t.shape[1], self.capacity, t.shape[3]) for t in (key, value)]
            stored = self._layers[layer] = (key.new_zeros(shapes[0]), value.new_zeros(shapes[1]))
        return stored

    @property
    def layers(self) -> set[int]:
        """The layers seen so far."""
        return set(self._layers)

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions a slot."""
        if capacity <= self.capacity:
            return
        # Grown by copying, not in place: a layer's tensor is one block, which attention reads as [slots, :, :longest].
        for layer, stored in self._layers.items():
            grown = tuple(t.new_zeros((*t.shape[:2], capacity, t.shape[3])) for t in stored)
            for new, old in zip(grown, stored, strict=True):
                new[:, :, : self.capacity] = old
            self._layers[layer] = (grown[0], grown[1])
        self.capacity = capacity

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot to another."""
        for stored in self._layers.values():
            for tensor in stored:
                tensor[target, :, :length] = tensor[source, :, :length]


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a prompt in a step's row: tokens `start:stop` of the row go to positions `begin:end` of a slot."""

    slot: int
    start: int
    stop: int
    begin: int
    end: int


@dataclass(frozen=True)
class StepPlan:
    """Attention of one step: a row of one new token for each decoding slot, then parts of prompts.

    Attributes:
        decoding: [B] slots of the first B tokens of the row; at: [B] positions these tokens go to.
        lengths: [used] position of each slot's new token; 0 for a slot that isn't decoding.
        longest: the largest of `lengths`, plus one.
        spans: the parts of prompts.
        ends: tokens of the row at which a prompt is complete: the only ones of `spans` whose logits are read.
        last: index of the last layer, where nothing else needs to attend; None computes all of it.
    """

    cache: SlotCache
    decoding: Tensor
    at: Tensor
    lengths: Tensor
    longest: int
    spans: tuple[Span, ...]
    ends: frozenset[int] = frozenset()
    last: int | None = None
    _visible: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        """Store the row's keys and values and attend over the cache: [1, heads, T, dim] in and out."""
        keys, values = self.cache.layer(layer, key, value)
        # Laid out so that the caller's transpose to [1, T, heads, dim] is free.
        out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]).transpose(1, 2)
        rows = len(self.decoding)
        if rows:
            keys[self.decoding, :, self.at] = key[0, :, :rows].transpose(0, 1)
            values[self.decoding, :, self.at] = value[0, :, :rows].transpose(0, 1)
            out[0, :, :rows] = self._decode(query[0, :, :rows], keys, values, kernel).transpose(0, 1)
        for s in self.spans:
            keys[s.slot, :, s.begin : s.end] = key[0, :, s.start : s.stop]
            values[s.slot, :, s.begin : s.end] = value[0, :, s.start : s.stop]
            start = s.start if layer != self.last else s.stop - (s.stop - 1 in self.ends)
            if start < s.stop:
                seen = [t[s.slot : s.slot + 1, :, : s.end] for t in (keys, values)]
                out[:, :, start : s.stop] = kernel.causal(query[:, :, start : s.stop], seen[0], seen[1])
        return out

    def _decode(self, query: Tensor, keys: Tensor, values: Tensor, kernel: Kernel) -> Tensor:
        """[heads, B, dim] -> [B, heads, dim]: one token of each decoding slot over its own positions."""
        used, kv_heads = len(self.lengths), keys.shape[1]
        heads, rows, dim = query.shape
        # Heads that share keys become queries of one head, so that no key is repeated.
        grouped = query.transpose(0, 1).reshape(rows, kv_heads, heads // kv_heads, dim)
        if rows < used:
            # A slot in between that isn't decoding takes part with a zero query: cheaper than gathering the cache.
            grouped = query.new_zeros(used, *grouped.shape[1:]).index_copy_(0, self.decoding, grouped)
        seen = [t[:used, :, : self.longest] for t in (keys, values)]
        out = kernel.masked(grouped, seen[0], seen[1], self._mask(kernel.sliding_window))
        return (out[self.decoding] if rows < used else out).reshape(rows, heads, -1)

    def _mask(self, window: int | None) -> Tensor:
        """[used, 1, 1, longest] true where a slot's new token sees a position."""
        if window not in self._visible:
            position = torch.arange(self.longest, device=self.lengths.device)
            last = self.lengths[:, None]
            visible = position <= last
            if window is not None:
                visible &= position > last - window
            self._visible[window] = visible[:, None, None]
        return self._visible[window]
