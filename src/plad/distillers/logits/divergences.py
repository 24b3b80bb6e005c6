"""Divergences between a teacher's and a student's distribution over the next token.

Everywhere p is the teacher, q the student, and both are given as log-probabilities over the same V tokens (or the same
buckets of tokens), finite: a probability of zero is a very negative number, see `log_softmax`. A divergence is of one
position; which positions are added up, and with what weight, is the caller's matter.
"""

import math

import torch
from torch import Tensor

FLOOR = -1e4
"""The log-probability of the impossible: its exponential is 0 in every float type, and 0 * FLOOR is 0."""


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [..., V] of logits [..., V] at a temperature, none of them below `FLOOR`.

    Source: PLaD (arXiv 2406.02886), Eq. 1.
    """
    scaled = logits if temperature == 1.0 else logits / temperature
    return scaled.log_softmax(-1).clamp_min(FLOOR)


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Kullback-Leibler divergence of b from a: [..., V] twice -> [...], in nats.

        KL(a || b) = sum_v a(v) (log a(v) - log b(v))

    Source: Kullback and Leibler, "On information and sufficiency", 1951.
    """
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """Log-probabilities [..., V] of share * a + (1 - share) * b, for a share strictly between 0 and 1."""
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share))


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q): the student covers what the teacher finds likely. [..., V] twice -> [...].

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015; f-distill (arXiv 2307.15190), KL.
    """
    return kl(log_p, log_q)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p): the student keeps to what the teacher finds likely. [..., V] twice -> [...].

    Source: f-distill (arXiv 2307.15190), RKL; MiniLLM (arXiv 2306.08543), section 2.1.
    """
    return kl(log_q, log_p)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Total variation distance, between 0 and 1: [..., V] twice -> [...].

        TVD(p, q) = 1/2 sum_v |p(v) - q(v)|

    Source: f-distill (arXiv 2307.15190), TVD.
    """
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


def js_of_teacher(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """The part of the Jensen-Shannon divergence that is taken on the teacher's samples: [..., V] twice -> [...].

        KL(p || m),  m = beta q + (1 - beta) p

    Args:
        beta: the student's share of the mixture, strictly between 0 and 1.

    Source: f-distill (arXiv 2307.15190), JS.
    """
    return kl(log_p, mixture(log_q, log_p, beta))


def js_of_student(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """The part of the Jensen-Shannon divergence that is taken on the student's samples: [..., V] twice -> [...].

        KL(q || m),  m = beta q + (1 - beta) p

    Args:
        beta: the student's share of the mixture, strictly between 0 and 1.

    Source: f-distill (arXiv 2307.15190), JS.
    """
    return kl(log_q, mixture(log_q, log_p, beta))


def generalized_jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence: [..., V] twice -> [...].

        D(p || q) = beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q

    At the ends this would be 0 everywhere; D / beta goes to KL(p || q) as beta goes to 0, and D / (1 - beta) to
    KL(q || p) as beta goes to 1. These are what beta 0 and 1 stand for.

    Args:
        beta: between 0 and 1.

    Source: GKD (arXiv 2306.13649), section 2, generalized JSD.
    """
    if beta == 0:
        return forward_kl(log_p, log_q)
    if beta == 1:
        return reverse_kl(log_p, log_q)
    mixed = mixture(log_p, log_q, beta)
    return beta * kl(log_p, mixed) + (1 - beta) * kl(log_q, mixed)


def skew_kl(log_p: Tensor, log_q: Tensor, skew: float) -> Tensor:
    """Skew KL divergence: [..., V] twice -> [...].

        KL(p || a p + (1 - a) q)

    Args:
        skew: a, from 0 (the forward KL) to below 1.

    Source: DistiLLM (arXiv 2402.03898), section 3.1, alpha-SKL.
    """
    return kl(log_p, mixture(log_p, log_q, skew) if skew else log_q)


def skew_reverse_kl(log_p: Tensor, log_q: Tensor, skew: float) -> Tensor:
    """Skew reverse KL divergence: [..., V] twice -> [...].

        KL(q || a q + (1 - a) p)

    Args:
        skew: a, from 0 (the reverse KL) to below 1.

    Source: DistiLLM (arXiv 2402.03898), section 3.1, alpha-SRKL.
    """
    return kl(log_q, mixture(log_q, log_p, skew) if skew else log_p)
