"""The scoring core: per-token log-probabilities of every completion, each prompt computed once.

Four routes give the same numbers. *Segments* packs groups into one row and restricts attention; *cache* computes a
prompt once and reads it from `past_key_values`, for models whose attention can't be replaced; *encoder* encodes a
prompt once and decodes its completions from the states, for encoder-decoders; *plain* is the padded forward of each
completion with its own prompt, for models that can do none of these.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plad.errors import PolicyError
from plad.scoring import encoder_decoder
from plad.scoring.attention import NAME, implementation, plan_attention, replaceable, unwrap
from plad.scoring.head import TOLERANCE, Wanted, accepted, read_head, recomputes
from plad.scoring.last_layer import last_layer, read_at
from plad.scoring.layout import Group, lay_out, pad
from plad.scoring.segments import SegmentPlan


class Route(StrEnum):
    """How the completions of a prompt share it."""

    SEGMENTS = "segments"
    CACHE = "cache"
    ENCODER = "encoder"
    PLAIN = "plain"


@dataclass(frozen=True)
class Scores:
    """What the core measured.

    Attributes:
        groups: what was scored.
        logps: [N] log-probability, in nats, of every completion token, in the order of groups, completions, tokens, and
            not defined for a completion that is context; [0] where no logits were asked for.
        states: [N, H] the input of the model's output head at the position that predicts each completion token;
            None unless asked for.
    """

    groups: Sequence[Group]
    logps: Tensor
    states: Tensor | None = None

    @property
    def sizes(self) -> list[int]:
        """Completions of each group; they add up to M."""
        return [len(group.completions) for group in self.groups]

    @property
    def chosen(self) -> list[int]:
        """How many of each group's completions, from the first on, are preferred to its others."""
        return [group.chosen for group in self.groups]

    @cached_property
    def lengths(self) -> Tensor:
        """[M] tokens of each completion."""
        lengths = [len(completion) for group in self.groups for completion in group.completions]
        return torch.tensor(lengths, device=self.logps.device)

    def sums(self) -> Tensor:
        """[M] log-probability of each completion; 0 for an empty one."""
        owner = torch.repeat_interleave(self.lengths, output_size=len(self.logps))
        return self.logps.new_zeros(len(self.lengths)).index_add(0, owner, self.logps)

    def means(self) -> Tensor:
        """[M] log-probability of each completion, a token; 0 for an empty one."""
        return self.sums() / self.lengths.clamp(min=1)


def score(
    model: nn.Module, groups: Sequence[Group], *, route: Route | None = None, states: bool = False, logits: bool = True
) -> Scores:
    """Log-probabilities of every completion of every group, differentiable.

    Args:
        model: a transformers model, bare or wrapped by peft or DistributedDataParallel.
        groups: at least one; with the segments route they are packed into one row (see `layout.pack`), with the encoder
            route their prompts are one batch, padded to the longest.
        route: how prompts are shared; default: `choose_route(model)`.
        states: also give the states from which the head predicts, differentiable too.
        logits: False leaves the head out, and log-probabilities with it: what remains are the states.

    Raises:
        PolicyError: the model can't be scored by this route.
    """
    route = choose_route(model) if route is None else route
    base = unwrap(model)
    wanted = Wanted(logps=logits, states=states)
    if route is Route.CACHE and recomputes(base):
        route = Route.PLAIN  # checkpointed layers drop the cache
    if route is Route.SEGMENTS:
        columns = _segments(model, base, groups, wanted)
    elif route is Route.ENCODER:
        columns = encoder_decoder.shared(model, base, groups, wanted)
    else:
        alone = encoder_decoder.separate if base.config.is_encoder_decoder else _padded
        one = _cached if route is Route.CACHE else alone
        columns = _join([one(model, base, group, wanted) for group in groups])
    measured = iter(columns)
    return Scores(groups, next(measured) if logits else torch.zeros(0, device=base.device), next(measured, None))


def choose_route(model: nn.Module) -> Route:
    """The fastest route that `model`'s class and configuration promise to support."""
    return routes(model)[0]


def routes(model: nn.Module) -> tuple[Route, ...]:
    """The routes that `model`'s class and configuration promise to support, the fastest first."""
    base = unwrap(model)
    keywords = accepted(base)
    if base.config.is_encoder_decoder:
        shares = {"encoder_outputs", "past_key_values"} <= keywords
        return (Route.ENCODER, Route.PLAIN) if shares else (Route.PLAIN,)
    layers = set(getattr(base.config, "layer_types", None) or ())
    # chunked and recurrent layers don't receive their pattern as a keyword of the attention function
    regular = layers <= {"full_attention", "sliding_attention"}
    others = (Route.CACHE, Route.PLAIN) if "past_key_values" in keywords else (Route.PLAIN,)
    return (Route.SEGMENTS, *others) if replaceable(base) and regular and "position_ids" in keywords else others


def checked_route(model: nn.Module, group: Group, log: Callable[[str], None]) -> Route:
    """The fastest route that gives `group` the log-probabilities of the plain forward, one sequence at a time.

    Args:
        model: as for `score`; its training mode is left as it was.
        group: a real one: longer than the attention windows of the model, if its prompts are.
        log: receives a line for every route that fails.

    Raises:
        PolicyError: no route reproduces the plain forward, or that isn't finite.
    """
    base = unwrap(model)
    modes = [(module, module.training) for module in model.modules()]
    # a leak between completions, or between groups of unlike prompts, must show
    completions = (group.completions * 2)[: max(2, len(group.completions))]
    half = group.prompt[: (len(group.prompt) + 1) // 2]
    groups = [Group(group.id, prompt, completions) for prompt in (group.prompt, half)]
    try:
        model.eval()
        with torch.no_grad():
            plain = torch.cat([_separate(model, g.prompt, c) for g in groups for c in completions])
            if not plain.isfinite().all():
                raise PolicyError(f"{type(base).__name__} gives log-probabilities that aren't finite", where=group.id)
            for route in routes(model):
                if (problem := _problem(model, groups, route, plain)) is None:
                    return route
                log(f"{type(base).__name__}: the {route} route is not used: {problem}")
    finally:
        for module, training in modes:
            module.training = training
    raise PolicyError(f"no route reproduces the plain forward of {type(base).__name__}", where=group.id)


def _problem(model: nn.Module, groups: Sequence[Group], route: Route, plain: Tensor) -> str | None:
    """Why `route` doesn't give `groups` the log-probabilities `plain`."""
    try:
        logps = score(model, groups, route=route).logps
    except Exception as error:  # whatever a foreign model raises, the next route may work
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    difference = (logps - plain).abs().mean().item() if len(plain) else 0.0
    tolerance = TOLERANCE.get(unwrap(model).dtype, 1e-1)
    return None if difference <= tolerance else f"log-probabilities differ by {difference:.2g} nats a token"


def _separate(model: nn.Module, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """[tokens] log-probabilities of one completion by the plain forward of one sequence."""
    device = unwrap(model).device
    if unwrap(model).config.is_encoder_decoder:
        logits = encoder_decoder.plain_logits(model, prompt, completion)
    else:
        ids = torch.tensor([[*prompt, *completion]], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(-1).gather(1, _long(completion, device)[:, None]).squeeze(1)


def _join(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    """Measurements of successive tokens, put end to end."""
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _segments(model: nn.Module, base: PreTrainedModel, groups: Sequence[Group], wanted: Wanted) -> list[Tensor]:
    """[N, ...] each, by packing the groups into one row."""
    held = implementation(base) == NAME
    if recomputes(base) and torch.is_grad_enabled() and not held:
        raise PolicyError(
            "gradient checkpointing recomputes attention in the backward pass, after the scoring call has ended",
            fix="put score() and backward() inside `with plan_attention(model):`",
        )
    row = lay_out(groups, base.device)
    # recomputed layers run after this call has ended, when nothing says any longer which positions are read
    last = None if recomputes(base) else last_layer(base)
    with plan_attention(base), nullcontext() if last is None else read_at(base, row.keep, row.input_ids.shape[1]):
        read, _ = read_head(
            model,
            base,
            row.keep,
            wanted,
            scored=row.scored,
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            use_cache=False,
            plad_plan=SegmentPlan(groups, base.device, last_layer=last),
        )
    return read(row.sources, row.targets)


def _cached(model: nn.Module, base: PreTrainedModel, group: Group, wanted: Wanted) -> list[Tensor]:
    """[N, ...] each, of one group: the prompt once, then its completions as a batch that reads the prompt's cache."""
    device, completions = base.device, group.completions
    prompt = torch.tensor([group.prompt], device=device)
    last = torch.tensor([len(group.prompt) - 1], device=device)
    read, output = read_head(model, base, last, wanted, input_ids=prompt, use_cache=True)
    started = [completion[0] for completion in completions if completion]
    firsts = read(torch.zeros(len(started), dtype=torch.long, device=device), _long(started, device))
    longest = max(group.branches)
    if not longest:
        return firsts
    cache = output.past_key_values
    cache.batch_repeat_interleave(len(completions))
    read, _ = read_head(
        model,
        base,
        torch.arange(longest, device=device),
        wanted,
        input_ids=pad([completion[:-1] for completion in completions], group.prompt[0], device),
        past_key_values=cache,
        use_cache=True,
    )
    sources = [k * longest + i for k, n in enumerate(group.branches) for i in range(n)]
    targets = [token for completion in completions for token in completion[1:]]
    rest = read(_long(sources, device), _long(targets, device))
    # the order of tokens: each completion's first one, then its others
    order: list[int] = []
    first, other = 0, len(started)
    for completion, n in zip(completions, group.branches, strict=True):
        order += [first, *range(other, other + n)] if completion else []
        first, other = first + bool(completion), other + n
    at = _long(order, device)
    return [column[at] for column in _join([firsts, rest])]


def _padded(model: nn.Module, base: PreTrainedModel, group: Group, wanted: Wanted) -> list[Tensor]:
    """[N, ...] each, of one group: every completion with its own copy of the prompt, right-padded."""
    device, start, longest = base.device, len(group.prompt) - 1, max(group.branches)
    rows = [(*group.prompt, *completion[:-1]) for completion in group.completions]
    read, _ = read_head(
        model,
        base,
        torch.arange(start, start + longest + 1, device=device),
        wanted,
        input_ids=pad(rows, group.prompt[0], device),
        use_cache=False,
    )
    sources = [k * (longest + 1) + i for k, completion in enumerate(group.completions) for i in range(len(completion))]
    targets = [token for completion in group.completions for token in completion]
    return read(_long(sources, device), _long(targets, device))


def _long(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)
