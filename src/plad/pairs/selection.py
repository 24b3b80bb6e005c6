"""Which candidates of a prompt are paired: all, the best with the worst, or those that rejection sampling accepts."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

from plad.config.pairs import SelectRso
from plad.pairs.candidates import Answer, Candidates


def best_worst(prompt: Candidates) -> list[tuple[Answer, Answer]]:
    """The teacher's best against the student's worst; of equals the first, none where a side is unjudged."""
    teacher = [a for a in prompt.teacher if a.score is not None]
    student = [b for b in prompt.student if b.score is not None]
    if not teacher or not student:
        return []
    return [(max(teacher, key=score_of), min(student, key=score_of))]


def score_of(answer: Answer) -> float:
    """The score of an answer that has one."""
    assert answer.score is not None
    return answer.score


def accepted(prompt: Candidates, select: SelectRso, seed: int, counts: Counter[str]) -> list[Answer]:
    """The student's answers that rejection sampling keeps, in order of acceptance."""
    judged = [b for b in prompt.student if b.score is not None]
    counts["rso_usable"] += len(prompt.student)
    uniform = stream(seed, prompt.example.id, "accept").random
    chosen = accept([score_of(b) for b in judged], beta=select.beta, keep=select.keep, uniform=uniform)
    counts["rso_judged"] += len(judged)
    counts["rso_accepted"] += len(chosen)
    return [judged[i] for i in chosen]


def stream(seed: int, example_id: str, purpose: str) -> random.Random:
    """A prompt's own random numbers: other prompts and their order don't move them."""
    return random.Random(int.from_bytes(hashlib.sha256(f"rso:{purpose}:{seed}:{example_id}".encode()).digest()[:8]))


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
