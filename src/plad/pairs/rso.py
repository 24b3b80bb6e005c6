"""Statistical rejection sampling: which of a policy's samples would the policy that is best for a scorer have given?"""

import math
from collections.abc import Callable, Sequence


def accept(rewards: Sequence[float], *, beta: float, keep: int, uniform: Callable[[], float]) -> list[int]:
    """Sample from pi(y|x) proportional to q(y|x) exp(r(x, y) / beta), given samples of q.

    In rounds, in order, every sample that is left is accepted with probability exp((r - r_max) / beta), where r_max is
    the highest reward among those left at the start of the round. A round accepts at least the best one.

    Args:
        rewards: [K] of K samples of q to one prompt.
        beta: temperature in units of the reward: towards 0 the best are accepted in order, at infinity all alike.
        keep: stop after this many.
        uniform: gives numbers in [0, 1).

    Returns:
        Indices of accepted samples in order of acceptance: min(keep, K) of them.

    Source: Liu et al., "Statistical Rejection Sampling Improves Preference Optimization" (arXiv 2309.06657),
        Algorithm 1.
    """
    left = list(range(len(rewards)))
    accepted: list[int] = []
    while left and len(accepted) < keep:
        highest = max(rewards[i] for i in left)
        for i in tuple(left):
            if uniform() < math.exp((rewards[i] - highest) / beta):
                accepted.append(i)
                left.remove(i)
                if len(accepted) == keep:
                    break
    return accepted
