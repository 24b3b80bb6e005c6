"""The whole evaluation on systems whose truth is known: no difference is not found, a planted one is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.evaluate.winrate import judge_pairs
from plad.records import Example, Generation, Outcome
from plad.report.parts.blocks import BETTER, SAME
from plad.report.parts.estimates import tone_of


class Oracle:
    """Reads the quality that stands at the head of an answer."""

    name = "oracle"

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        return [float(text.split()[0]) for text in texts]

    def describe(self) -> dict[str, Any]:
        return {"type": "oracle"}


def evaluated(seed: int, n: int, gain: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """metrics.json, and the student against the SFT student head to head.

    An answer's quality is its prompt's plus its own normal noise, and its length is drawn apart from it. The student's
    is higher by `gain`: against one other answer it wins with probability Phi(gain / sqrt 2).
    """
    rng = np.random.default_rng([seed, n])
    prompts = rng.normal(size=n)

    def texts(shift: float) -> list[str]:
        qualities = prompts + shift + rng.normal(size=n)
        return [f"{q} " + "word " * k for q, k in zip(qualities, rng.integers(5, 60, size=n), strict=True)]

    targets, sft, student = texts(0.0), texts(0.0), texts(gain)
    examples = [Example(str(i), "P", (target,)) for i, target in enumerate(targets)]

    def answers(rows: list[str]) -> dict[str, Generation]:
        return {e.id: Generation(e.id, 0, t, (1,), Outcome.OK, 1) for e, t in zip(examples, rows, strict=True)}

    metrics, _ = evaluate_systems(
        examples,
        {"student_sft": answers(sft), "student": answers(student)},
        [Oracle()],
        bootstrap=Bootstrap(400, seed),
        rouge=False,
    )
    rates, _ = judge_pairs(
        examples, student, sft, [Oracle()], bootstrap=Bootstrap(400, seed), systems=("student", "student_sft")
    )
    return metrics, rates["oracle"]


def excludes(e: dict[str, Any], value: float) -> bool:
    return not e.low <= value <= e.high


def test_two_copies_of_a_student_do_not_differ() -> None:
    """The same student sampled twice: at 95 % about 5 of 100 repetitions may claim a difference, never 11."""
    same = within = straight = alike = 0
    for seed in range(100):
        metrics, rate = evaluated(seed, 100, 0.0)
        difference = metrics.differences["student - student_sft"].win_rate["oracle"]
        same += tone_of(difference) == SAME
        within += difference.sign_test_p >= 0.05
        straight += not excludes(rate, 0.5)
        alike += not excludes(difference.length_controlled, 0.0)
    assert min(same, within, straight, alike) >= 90, (same, within, straight, alike)


def test_a_planted_winner_of_60_percent_is_found() -> None:
    """Phi(0.2533) = 0.6. On 800 prompts the paired difference of 10 points is found too, not only the win rate."""
    gain = 0.2533471 * 2**0.5
    found = head_to_head = against_target = by_sign = 0
    rates: list[float] = []
    for seed in range(30):
        metrics, rate = evaluated(seed, 800, gain)
        difference = metrics.differences["student - student_sft"].win_rate["oracle"]
        own = metrics.systems["student"].win_rate["oracle"]
        found += tone_of(difference) == BETTER
        head_to_head += rate.low > 0.5
        against_target += own.low > 0.5 and own.length_controlled.low > 0.5
        by_sign += rate.sign_test_p < 0.05
        rates.append(rate.value)
    assert min(found, head_to_head, against_target, by_sign) >= 27, (found, head_to_head, against_target, by_sign)
    assert abs(np.mean(rates) - 0.6) < 0.01
