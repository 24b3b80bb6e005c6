"""Objectives on a teacher's predictions: which divergence at which token, and how tokens are added up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from plad.distillers.logits.compare import Teacher, compared, token_log_probs
from plad.distillers.logits.divergences import reverse_kl
from plad.distillers.logits.policy_gradient import clipped_policy_loss
from plad.objectives.base import ObjectiveOut
from plad.scoring.layout import Group
from plad.scoring.score import Scores


class GroupLoss(Protocol):
    """Maps what was measured of groups to one loss a group."""

    @property
    def states(self) -> bool:
        """Whether it needs the states behind every token."""
        ...

    @property
    def logits(self) -> bool:
        """Whether it needs log-probabilities."""
        ...

    def weight(self, group: Group) -> float:
        """The group's share of the batch loss's denominator."""
        ...

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of the groups behind `scores`."""
        ...


Divergence = Callable[[Tensor, Tensor], Tensor]
"""Of the teacher's and the student's log-probabilities, [C, V] twice -> [C]."""


@dataclass(frozen=True, slots=True)
class Share:
    """What is taken at every token of one kind of text, the teacher's or the student's, and its weight."""

    divergence: Divergence
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class DivergenceLoss:
    """A divergence at every token, with an optional cross-entropy.

    A group's texts are the teacher's (its chosen ones) and the student's (the others). The texts of one kind are
    averaged, the kinds are added; a batch is divided by the tokens of an average text.

        L = sum_kind weight_kind / texts_kind  sum_t (ratio scale D(p_t, q_t) - (1 - ratio) log q(y_t))

    Attributes:
        student: the model whose states are scored.
        teacher: predicts the same tokens.
        of_teacher, of_student: what is taken on each kind of text; None leaves such texts out.
        temperature: of both softmaxes.
        scale: of the divergence. The square of the temperature keeps its gradient's size, which falls with that.
        ratio: share of the divergence; the rest is cross-entropy of the text.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015, for one kind of text, scale and ratio;
    f-distill (arXiv 2307.15190), section 2, for both kinds.
    """

    student: nn.Module
    teacher: Teacher
    of_teacher: Share | None
    of_student: Share | None
    temperature: float = 1.0
    scale: float = 1.0
    ratio: float = 1.0
    states: bool = field(default=True, init=False)  # predictions are made of them, a few at a time
    logits: bool = field(default=False, init=False)  # log-probabilities come out beside the divergence

    def _kinds(self, group: Group) -> list[tuple[Share, range]]:
        """What is taken on each kind of text that counts, with the indices of its completions, which may be none."""
        kinds = (self.of_teacher, range(group.chosen)), (self.of_student, range(group.chosen, group.candidates))
        return [(share, texts) for share, texts in kinds if share is not None]

    def weight(self, group: Group) -> float:
        """Tokens of an average text: the mean over kinds of the mean over the kind's texts."""
        kinds = [sum(len(group.completions[i]) for i in texts) / len(texts) for _, texts in self._kinds(group) if texts]
        return sum(kinds) / len(kinds) if kinds else 0.0

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of the groups; prompts and padding never enter."""
        assert scores.states is not None
        device = scores.states.device
        rows = self.teacher.rows(scores.groups)
        targets = completion_tokens(scores.groups, device)
        wide = torch.promote_types(scores.states.dtype, torch.float32)
        factors = self._factors(scores, wide)
        values = torch.zeros(len(targets), 2, dtype=wide, device=device)
        for share, factor in factors:
            at = factor.nonzero().squeeze(1)
            if len(at):
                both = compared(
                    self.student,
                    scores.states[at],
                    rows.at(at),
                    targets[at],
                    lambda p, q, logps, of=share.divergence: torch.stack([of(p, q), -logps], -1),
                    temperature=self.temperature,
                )
                values = values.index_add(0, at, both)
        factor = torch.stack([factor for _, factor in factors]).sum(0)
        weighed = self.ratio * self.scale * values[:, 0] + (1 - self.ratio) * values[:, 1]
        owner = group_of_tokens(scores)
        losses = values.new_zeros(len(scores.groups)).index_add(0, owner, factor * weighed)
        counted = (factor > 0).to(values.dtype)
        means = _mean_of_groups(values.detach() * counted[:, None], counted, owner, len(losses))
        return ObjectiveOut(
            losses, torch.ones_like(losses, dtype=torch.bool), {"divergence": means[:, 0], "nll": means[:, 1]}
        )

    def _factors(self, scores: Scores, dtype: torch.dtype) -> list[tuple[Share, Tensor]]:
        """For each kind, [N] by what its tokens are multiplied; 0 for those of the other kind."""
        factors: list[tuple[Share, Tensor]] = []
        for kinds in zip(*map(self._kinds, scores.groups), strict=True):
            of_text: list[float] = []
            for group, (share, texts) in zip(scores.groups, kinds, strict=True):
                of_text += [share.weight / len(texts) if i in texts else 0.0 for i in range(len(group.completions))]
            factor = torch.tensor(of_text, dtype=dtype, device=scores.lengths.device)
            factors.append((kinds[0][0], torch.repeat_interleave(factor, scores.lengths)))
        return factors


@dataclass(frozen=True, slots=True)
class Rollout(Group):
    """A prompt and one sampled text, with what was measured of its L tokens when it was sampled.

    Attributes:
        old_logps: [L] log-probability by the student that sampled.
        advantages: [L] what follows, in rewards.
        weights: [L] importance weights.
    """

    old_logps: tuple[float, ...] = field(default=())
    advantages: tuple[float, ...] = field(default=())
    weights: tuple[float, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Document(Group):
    """A stretch of plain text, as a first token and the rest; `scale` weighs its tokens against those of rollouts."""

    scale: float = 1.0


_FIGURES = ("reverse_kl", "clipped", "nll", "document_nll")  # the first three of rollouts


@dataclass(frozen=True, slots=True)
class MiniLlmLoss:
    """Reverse KL of whole texts: the exact part of every next token, and the policy gradient of what follows.

        L = 1/N sum_t ( single_step KL(q_t || p_t) + max(-A_t rho_t, -A_t clip(rho_t, 1 - eps, 1 + eps)) )

    over the N tokens of a batch's rollouts, plus the mean cross-entropy of its documents.

    Attributes:
        student: the model whose states are scored.
        teacher: predicts the same tokens.
        clip: eps.
        single_step: weight of the exact part.

    Source: MiniLLM (arXiv 2306.08543), section 2.2 and algorithm 1. The paper's final gradient (Eq. 7) has the
    importance weight before both parts; here, as in its published code, the exact part weighs 1.
    """

    student: nn.Module
    teacher: Teacher
    clip: float
    single_step: float
    states: bool = field(default=True, init=False)
    logits: bool = field(default=False, init=False)

    def weight(self, group: Group) -> float:
        """Tokens of a rollout; documents are scaled already."""
        return 0.0 if isinstance(group, Document) else float(sum(map(len, group.completions)))

    def __call__(self, scores: Scores) -> ObjectiveOut:
        """Losses of rollouts and documents."""
        assert scores.states is not None
        device = scores.states.device
        owner = group_of_tokens(scores)
        targets = completion_tokens(scores.groups, device)
        rollouts = [g for g in scores.groups if isinstance(g, Rollout)]
        sampled = torch.tensor([isinstance(g, Rollout) for g in scores.groups], device=device)[owner]
        wide = torch.promote_types(scores.states.dtype, torch.float32)
        losses = torch.zeros(len(scores.groups), dtype=wide, device=device)
        figures = losses.new_full((len(targets), len(_FIGURES)), float("nan"))
        if rollouts:
            at = sampled.nonzero().squeeze(1)
            step, token, clipped, logps = self._of_rollouts(rollouts, scores.states[at], targets[at])
            losses = losses.index_add(0, owner[at], self.single_step * step + token)
            figures[at, :3] = torch.stack([step, clipped, -logps], -1).detach()
        if len(rollouts) < len(scores.groups):
            at = (~sampled).nonzero().squeeze(1)
            logps = token_log_probs(self.student, scores.states[at], targets[at])
            scales = [g.scale if isinstance(g, Document) else 0.0 for g in scores.groups]
            losses = losses.index_add(0, owner[at], -logps * torch.tensor(scales, device=device).to(wide)[owner[at]])
            figures[at, 3] = -logps.detach()
        means = _mean_of_groups(figures, torch.ones_like(figures[:, 0]), owner, len(losses))
        metrics = {name: means[:, i] for i, name in enumerate(_FIGURES) if not bool(means[:, i].isnan().all())}
        return ObjectiveOut(losses, torch.ones_like(losses, dtype=torch.bool), metrics)

    def _of_rollouts(
        self, rollouts: Sequence[Rollout], states: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[N] each: reverse KL, policy loss, whether the ratio has left its bounds, log-probability."""
        both = compared(
            self.student,
            states,
            self.teacher.rows(rollouts),
            targets,
            lambda p, q, logps: torch.stack([reverse_kl(p, q), logps], -1),
        )
        step, logps = both.unbind(-1)
        old, advantages, weights = (
            torch.tensor([v for g in rollouts for v in getattr(g, name)], device=logps.device).to(logps.dtype)
            for name in ("old_logps", "advantages", "weights")
        )
        token = clipped_policy_loss(logps, old, advantages, weights, self.clip)
        ratio = weights * (logps.detach() - old).exp()
        return step, token, ((ratio - 1).abs() > self.clip).to(logps.dtype), logps


def completion_tokens(groups: Sequence[Group], device: torch.device) -> Tensor:
    """[N] tokens of every completion, in the order of groups, completions, tokens."""
    return torch.tensor([t for g in groups for c in g.completions for t in c], dtype=torch.long, device=device)


def group_of_tokens(scores: Scores) -> Tensor:
    """[N] index of the group of every completion token."""
    tokens = torch.tensor([sum(map(len, g.completions)) for g in scores.groups], device=scores.lengths.device)
    return torch.repeat_interleave(tokens, output_size=int(tokens.sum()))


def _mean_of_groups(values: Tensor, counted: Tensor, owner: Tensor, groups: int) -> Tensor:
    """[G, M] means over a group's counted tokens of values [N, M]; 0 for a group without any."""
    sums = values.new_zeros(groups, values.shape[1]).index_add(0, owner, values)
    counts = values.new_zeros(groups).index_add(0, owner, counted)
    return sums / counts.clamp_min(1)[:, None]
