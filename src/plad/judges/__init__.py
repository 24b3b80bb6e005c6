"""Judges: which of two answers is better? A judge scores each answer; the higher score wins.

    judge.score(examples, texts, references) -> one score a text, or None where it can't judge

Scores are compared only within a judge and a prompt. `references` are the texts an answer may be held against: the
evaluation leaves the target out of them when the target is the opponent. A judge that reads only prompt and answer
ignores them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from plad.config import ReferenceJudge as ReferenceSection
from plad.config import RewardJudge as RewardSection
from plad.config import VerifiableJudge as VerifiableSection
from plad.records import Example

JudgeSection = ReferenceSection | RewardSection | VerifiableSection


class Judge(Protocol):
    """Scores answers."""

    name: str

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """One finite score a text, higher is better; None where the judge can't judge."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a reader must know to trust the scores: rule, model, what was cut off."""
        ...


def load_judge(section: JudgeSection, *, stemmer: bool = False) -> Judge:
    """The judge that a config section names.

    Raises:
        PolicyError: a reward model can't be used.
        ConfigError: a verifiable judge lacks its function.
    """
    if isinstance(section, VerifiableSection):
        from plad.judges.verifiable import VerifiableJudge

        return VerifiableJudge(section)
    if isinstance(section, RewardSection):
        from plad.judges.reward import RewardJudge

        return RewardJudge.load(section)
    from plad.judges.reference import ReferenceJudge

    return ReferenceJudge(stemmer=stemmer)


def load_judges(sections: Sequence[JudgeSection], *, stemmer: bool = False) -> list[Judge]:
    """All judges of a config, with different names."""
    judges: list[Judge] = []
    for section in sections:
        judge = load_judge(section, stemmer=stemmer)
        taken = {j.name for j in judges}
        if judge.name in taken:
            judge.name = next(f"{judge.name}-{i}" for i in range(2, 100) if f"{judge.name}-{i}" not in taken)
        judges.append(judge)
    return judges
