"""Bulk sampling with a bounded cache: a finished answer's slot is taken by the next prompt at once.

Every step is one unpadded row through the model: the next token of each answer in progress, then parts of
the prompts that come next. Long prompts are split over steps, so that the answers in progress share the
row's matrix products and memory stays bounded; no prompt is computed twice, whatever the number of its samples.
"""

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plad.sampling.cache import SlotCache, Span, StepPlan
from plad.sampling.draw import Draft, OnFinish, Request, begin, choose
from plad.scoring.last_layer import last_layer, read_at

Prompt = tuple[int, ...]
# Longest first, so that the cache grows early and seldom, and the steps of the end, with few answers left, are short
# ones; only within a window, so that prompts are still read as they are needed.
WINDOW = 512


def by_prompt(requests: Iterable[Request], window: int = WINDOW) -> Iterator[tuple[Prompt, list[Request]]]:
    """Group requests of one prompt, longest prompts first within each window of `window` prompts.

    Neighbours of one prompt are never torn apart; equal prompts within a window come together.
    """
    neighbours = ((p, list(same)) for p, same in itertools.groupby(requests, key=lambda r: r.prompt))
    while batch := list(itertools.islice(neighbours, window)):
        groups: dict[Prompt, list[Request]] = {}
        for prompt, same in batch:
            groups.setdefault(prompt, []).extend(same)
        yield from sorted(groups.items(), key=lambda group: -len(group[0]))


def common_prefix(a: Prompt, b: Prompt) -> int:
    """Number of leading tokens that two prompts share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(slots=True, eq=False)
class Slot:
    """One place of the cache: a prompt, and the answers to it.

    Attributes:
        filled: positions of the cache that hold the prompt and the current answer.
        current: the answer in progress; None while the prompt is being computed, and when all are finished.
        waiting: answers that follow in this place; once the prompt is computed they have their first token.
    """

    index: int
    prompt: Prompt = ()
    filled: int = 0
    current: Draft | None = None
    waiting: deque[Draft] = field(default_factory=deque[Draft])

    @property
    def free(self) -> bool:
        """Whether another prompt or answer can come in."""
        return self.current is None and not self.waiting

    def follow(self, finished: Collection[int]) -> None:
        """Drop finished answers (by id); where the current one is, the next one goes on right after the prompt."""
        self.waiting = deque(d for d in self.waiting if id(d) not in finished)
        if self.current is None or id(self.current) in finished:
            self.current = self.waiting.popleft() if self.waiting else None
            self.filled = len(self.prompt)


class SlotSampler:
    """Samples a stream of prompts with at most `slots` answers in progress.

    Args:
        model: its attention is switched to plad's.
        slots: answers in progress at once.
        prefill_tokens: most prompt tokens a step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        slots: int,
        prefill_tokens: int,
        eos_ids: Collection[int],
        on_finish: OnFinish,
    ) -> None:
        self.model, self.prefill_tokens = model, prefill_tokens
        self.eos_ids, self.on_finish = frozenset(eos_ids), on_finish
        self.cache = SlotCache(slots)
        self.last = last_layer(model)
        self.slots = [Slot(i) for i in range(slots)]
        self.prefilling: deque[Slot] = deque()

    def run(self, prompts: Iterable[tuple[Prompt, list[Request]]]) -> None:
        """Answer every request of every prompt."""
        source = iter(prompts)
        while True:
            self._admit(source)
            if all(slot.free for slot in self.slots):
                return
            self.step()

    def _admit(self, source: Iterator[tuple[Prompt, list[Request]]]) -> None:
        """Fill free slots: with the next prompts, and when there are none, with answers that wait elsewhere."""
        for slot in self.slots:
            if slot.free and (group := next(source, None)) is not None:
                prompt, requests = group
                self.cache.reserve(len(prompt) + max(r.max_new_tokens for r in requests))
                slot.prompt, slot.filled, slot.waiting = prompt, 0, deque(map(begin, requests))
                self.prefilling.append(slot)
            elif slot.free:
                self._help(slot)

    def _help(self, slot: Slot) -> None:
        """Take over an answer that waits in another slot, or the last slot's work, so that no hole stays."""
        busy = [s for s in self.slots if s.current is not None]
        donor = max(busy, key=lambda s: len(s.waiting), default=slot)
        if donor.waiting:
            self.cache.copy(donor.index, slot.index, len(donor.prompt))
            slot.prompt, slot.filled, slot.current = donor.prompt, len(donor.prompt), donor.waiting.pop()
        elif busy and busy[-1].index > slot.index:
            # Attention runs over all slots up to the last busy one: a hole costs as much as an answer.
            last = busy[-1]
            self.cache.copy(last.index, slot.index, last.filled)
            slot.prompt, slot.filled, slot.current = last.prompt, last.filled, last.current
            last.current = None

    def step(self) -> None:
        """One forward pass: the next token of every answer in progress, and the next parts of prompts."""
        decoding = [(s, s.current) for s in self.slots if s.current is not None]
        spans = list(self._spans(len(decoding)))
        logits = self.forward(decoding, spans)
        for slot, _ in decoding:
            slot.filled += 1
        for slot, span in spans:
            slot.filled = span.end
        complete = [slot for slot, span in spans if span.end == len(slot.prompt)]
        drafts, rows = [draft for _, draft in decoding], list(range(len(decoding)))
        # One row of logits starts all answers to a prompt: each draws its own first token from it.
        for row, slot in enumerate(complete, len(decoding)):
            self.prefilling.popleft()  # prompts are computed in order, so the complete ones stand first
            drafts.extend(slot.waiting)
            rows.extend([row] * len(slot.waiting))
        if not drafts:
            return
        tokens = choose(logits if len(rows) == len(logits) else logits[rows], drafts)
        finished = [d for d, token in zip(drafts, tokens, strict=True) if d.ends(token, self.eos_ids)]
        gone = {id(d) for d in finished}
        for slot in (*complete, *(s for s, _ in decoding)):
            slot.follow(gone)
        for draft in finished:
            self.on_finish(draft.request, tuple(draft.tokens), draft.seconds)

    def _spans(self, start: int) -> Iterator[tuple[Slot, Span]]:
        """Parts of the prompts that come next, from token `start` of the row on, within the budget."""
        left = self.prefill_tokens
        for slot in self.prefilling:
            if not left:
                return
            if slot.filled == 0:
                self._reuse(slot)
            length = min(left, len(slot.prompt) - slot.filled)
            yield slot, Span(slot.index, start, start + length, slot.filled, slot.filled + length)
            start, left = start + length, left - length

    def _reuse(self, slot: Slot) -> None:
        """Copy the longest beginning that the prompt shares with one already computed (an instruction, say)."""
        length, source = max(
            ((min(common_prefix(slot.prompt, s.prompt), s.filled), s.index) for s in self.slots if s is not slot),
            default=(0, slot.index),
        )
        length = min(length, len(slot.prompt) - 1)  # the last token is always computed: its logits are the first draw
        if length:
            self.cache.copy(source, slot.index, length)
            slot.filled = length

    def forward(self, decoding: list[tuple[Slot, Draft]], spans: list[tuple[Slot, Span]]) -> Tensor:
        """Logits [N, V] of the decoding slots, then of the prompts that are complete with this step."""
        ids = [draft.tokens[-1] for _, draft in decoding]
        at = [slot.filled for slot, _ in decoding]
        lengths = [0] * (1 + max((slot.index for slot, _ in decoding), default=-1))
        for slot, _ in decoding:
            lengths[slot.index] = slot.filled
        positions = list(at)
        for slot, span in spans:
            ids.extend(slot.prompt[span.begin : span.end])
            positions.extend(range(span.begin, span.end))
        ends = [span.stop - 1 for slot, span in spans if span.end == len(slot.prompt)]
        plan = StepPlan(
            self.cache,
            decoding=self._tensor([slot.index for slot, _ in decoding]),
            at=self._tensor(at),
            lengths=self._tensor(lengths),
            longest=1 + max(lengths, default=0),
            spans=tuple(span for _, span in spans),
            ends=frozenset(ends),
            last=self.last,
        )
        read = self._tensor([*range(len(decoding)), *ends])
        return self.logits(self._tensor(ids)[None], self._tensor(positions)[None], read, plan)

    def logits(self, ids: Tensor, positions: Tensor, read: Tensor, plan: StepPlan) -> Tensor:
        """Logits [N, V] at the tokens `read` [N] of a row of ids and positions, [1, T] each."""
        with read_at(self.model, read, ids.shape[1]):
            return self.model(
                input_ids=ids,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=read,
                plad_plan=plan,
            ).logits[0]

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.model.device)
