"""The policy gradient of MiniLLM: rewards, returns, advantages and the clipped loss of one sampled text's tokens.

L = length of the text. None of the numbers but the log-probabilities of `clipped_policy_loss` carry a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-8


def floats(values: Tensor) -> list[float]:
    """The numbers of a tensor [L]."""
    return values.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped


def rewards(teacher: Tensor, student: Tensor, *, scaling: float, clip: float | None) -> Tensor:
    """How much likelier every token is to the teacher than to the student that sampled it.

        r_t = clip( (log p(y_t) - log q(y_t)) / scaling )

    Args:
        teacher, student: [L] log-probabilities of the text's tokens.
        scaling: nats that make one unit of reward.
        clip: largest absolute reward; None for no bound.

    Source: MiniLLM (arXiv 2306.08543), section 2.2; scaling and bound as in its published settings.
    """
    reward = (teacher - student) / scaling
    return reward if clip is None else reward.clamp(-clip, clip)


def returns(reward: Tensor, *, discount: float = 1.0, own_reward: bool = False, normalize: bool = True) -> Tensor:
    """What follows every token, as the long-range part of the gradient weighs it.

        R_t = 1 / n_t  sum_{k > t} discount^(k - t - 1) r_k,   n_t = L - t the number of tokens that follow

    The token's own reward is left out: the single-step part takes its expectation exactly. Nothing follows the last
    token, whose return is 0.

    Args:
        reward: [L].
        discount: of the future, a token.
        own_reward: add the token's own reward, and count it: R_t = 1 / (n_t + 1) sum_{k >= t} discount^(k - t) r_k.
        normalize: divide by the number of tokens; else by 1 (a sum).

    Returns:
        [L].

    Source: MiniLLM (arXiv 2306.08543), section 2.2: single-step decomposition and length normalization; `own_reward`
    and `discount` are what the published code does beside them. The paper divides by one token fewer than follow, which
    is 0 before the last token; here the mean is over those that follow.
    """
    total, sums = 0.0, list[float]()
    for value in floats(reward.flip(0)):
        following = total
        total = value + discount * total
        sums.append(total if own_reward else following)
    totals = torch.tensor(sums[::-1], dtype=reward.dtype, device=reward.device)
    if not normalize:
        return totals
    counts = torch.arange(len(reward), 0, -1, dtype=reward.dtype, device=reward.device) - (0 if own_reward else 1)
    return totals / counts.clamp_min(1)


def whiten(values: Tensor) -> Tensor:
    """Values [N] of all tokens of a batch with mean 0 and variance 1; a single one becomes 0."""
    centred = values - values.mean()
    return centred * torch.rsqrt(centred.square().mean() + _TINY)


def importance(teacher: Tensor, student: Tensor, mix: float) -> Tensor:
    """Weights that make up for sampling from the mixture of teacher and student.

        w_t = q(y_t) / (mix p(y_t) + (1 - mix) q(y_t))

    Args:
        teacher, student: [L] log-probabilities of the text's tokens.
        mix: the teacher's share, below 1; 0 weighs every token 1.

    Source: MiniLLM (arXiv 2306.08543), section 2.2, teacher-mixed sampling with the single-step importance weight.
    """
    if mix == 0:
        return torch.ones_like(student)
    mix_tensor = student.new_tensor(mix)
    return (student - torch.logaddexp(teacher + mix_tensor.log(), student + torch.log1p(-mix_tensor))).exp()


def clipped_policy_loss(logps: Tensor, old_logps: Tensor, advantages: Tensor, weights: Tensor, clip: float) -> Tensor:
    """The loss of every sampled token, whose gradient is the policy gradient as long as the policy has moved little.

        L_t = max( -A_t rho_t, -A_t clip(rho_t, 1 - clip, 1 + clip) ),   rho_t = w_t q(y_t) / q_old(y_t)

    Args:
        logps: [N] log q(y_t), with gradient.
        old_logps: [N] log-probabilities under the student that sampled.
        advantages: [N] A_t.
        weights: [N] importance weights w_t.
        clip: by how much the ratio may leave 1.

    Returns:
        [N].

    Source: Schulman et al., "Proximal policy optimization algorithms", 2017, Eq. 7; MiniLLM (arXiv 2306.08543).
    """
    ratio = weights * (logps - old_logps).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


@dataclass(frozen=True, slots=True)
class Rewarding:
    """From log-probabilities of sampled texts to the advantages of their tokens.

    Attributes:
        scaling, clip: of `rewards`.
        mix: the teacher's share of the distribution that was sampled.
        discount, own_reward, normalize: of `returns`.
        whiten: bring the returns of a step's tokens to mean 0, variance 1.
    """

    scaling: float
    clip: float | None
    mix: float
    discount: float
    own_reward: bool
    normalize: bool
    whiten: bool

    def of_text(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """[L] rewards and [L] importance weights of a text's tokens, from their log-probabilities."""
        reward = rewards(teacher, student, scaling=self.scaling, clip=self.clip)
        return reward, importance(teacher, student, self.mix)

    def advantages(self, texts: Sequence[Sequence[float]]) -> list[Tensor]:
        """[L] of each text of a step, from the rewards of its tokens."""
        parts = [
            returns(
                torch.tensor(text, dtype=torch.float64),
                discount=self.discount,
                own_reward=self.own_reward,
                normalize=self.normalize,
            )
            for text in texts
        ]
        values = torch.cat(parts)
        return list(torch.split(whiten(values) if self.whiten else values, [len(part) for part in parts]))
