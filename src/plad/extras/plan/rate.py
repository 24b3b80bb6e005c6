"""How fast a model trains and answers on this machine: a few steps and short answers, timed."""

import contextlib
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from plad.config.models import LoraSection, ModelSection, PruneInit, StudentSection, TrainSettings
from plad.extras.plan.hours import ModelRate
from plad.objectives.sft import SftObjective
from plad.policy.load import Policy, load_policy
from plad.policy.prune import prune_layers
from plad.records import Example
from plad.sampling.draw import Request
from plad.sampling.sample import sample
from plad.scoring.attention import plan_attention
from plad.scoring.layout import Group
from plad.scoring.score import Route, choose_route, score
from plad.train.groups import keep_fitting, sft_groups
from plad.train.loss import loss_of
from plad.train.run import trainable

HEAD = 16  # prompt tokens of a timed answer: those of 16 answers fill a forward pass on a CPU
TOKENS = 6  # of a timed answer, after the first


@dataclass(frozen=True, slots=True)
class Timed:
    """A model as a run uses it.

    Attributes:
        rows: whose prompts it answers, and whose targets it is trained on.
        slots: answers at once.
        lora, settings: how it is trained; None where it is not.
    """

    section: ModelSection
    rows: Sequence[Example]
    slots: int
    lora: LoraSection | None
    settings: TrainSettings | None


class TooSlowError(Exception):
    """The time for measuring is used up."""


def measure(timed: Timed, deadline: float, clock: Callable[[], float] = time.monotonic) -> ModelRate:
    """Time a model; training is left out where no time is left for it. A pass that is begun goes on for one
    layer, or to its end where it goes backwards.

    Raises:
        TooSlowError: the deadline passed before it could answer.
        PolicyError: the model can't be loaded, or not be trained so.
    """

    def checked(*_: object) -> None:
        if clock() > deadline:
            raise TooSlowError("no time was left")

    checked()
    policy = _loaded(timed)
    checked()
    for module in policy.model.modules():
        module.register_forward_pre_hook(checked)  # a busy machine may need minutes for what takes a second
    now = partial(_now, policy, clock)
    rate = _sampling(policy, timed, now)
    if timed.settings is not None:
        with contextlib.suppress(TooSlowError):
            rate = _training(policy, timed, rate, now)
    del policy, now
    gc.collect()
    return rate


def _now(policy: Policy, clock: Callable[[], float]) -> float:
    if policy.device.type == "cuda":
        torch.cuda.synchronize(policy.device)
    return clock()


def _loaded(timed: Timed) -> Policy:
    policy = load_policy(timed.section)
    init = timed.section.init if isinstance(timed.section, StudentSection) else None
    return prune_layers(policy, init.layers, [timed.rows[0].prompt]) if isinstance(init, PruneInit) else policy


def _sampling(policy: Policy, timed: Timed, now: Callable[[], float]) -> ModelRate:
    prompts = [tuple(policy.prompt.encode_prompt(row.prompt))[:HEAD] for row in timed.rows[: timed.slots]]

    def seconds(tokens: int, answers: int | None = None) -> float:
        asked = [Request(str(i), prompt, tokens, 1.0, i) for i, prompt in enumerate(prompts[:answers])]
        start = now()
        sample(policy.model, asked, slots=timed.slots, eos_ids=(), on_finish=_ignore)
        return now() - start

    seconds(1, 1)  # the first is slower
    first, all_ = seconds(1), seconds(1 + TOKENS)
    return ModelRate(
        prompt=first / sum(map(len, prompts)),
        answer=max(all_ - first, 1e-9) / (TOKENS * len(prompts)),
        slots=len(prompts),
    )


def _ignore(*_: object) -> None:
    """An answer of no use."""


def _training(policy: Policy, timed: Timed, rate: ModelRate, now: Callable[[], float]) -> ModelRate:
    settings = timed.settings
    assert settings is not None
    groups = keep_fitting(sft_groups(timed.rows, policy.prompt), policy, settings.max_length).groups
    groups = sorted(groups, key=lambda g: len(g.prompt) + len(g.completions[0]))
    if not groups:
        return rate
    policy = trainable(policy, timed.lora, settings, seed=0)
    policy.model.train()
    _pass(policy, groups[0])  # the first is slower
    start = now()
    _pass(policy, middle := groups[len(groups) // 2])
    train = (now() - start) / (len(middle.prompt) + len(middle.completions[0]))
    optimizer = torch.optim.AdamW([p for p in policy.model.parameters() if p.requires_grad], lr=0.0)
    optimizer.step()  # pyright: ignore[reportUnknownMemberType]  # its moments are made
    start = now()
    optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    return replace(rate, train=train, step=now() - start)


def _pass(policy: Policy, group: Group) -> None:
    route = choose_route(policy.model)
    loss = loss_of(SftObjective(), policy.model)
    with plan_attention(policy.model) if route is Route.SEGMENTS else contextlib.nullcontext():
        total = loss(score(policy.model, [group], route=route)).losses.sum()
        total.backward()  # pyright: ignore[reportUnknownMemberType]
