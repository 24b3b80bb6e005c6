"""Judges: which of two answers is better? There are two kinds.

    judge.score(examples, texts, references)            -> one score a text; the higher score wins
    judge.compare(examples, ours, theirs, references)   -> one comparison a row

each with None where it can't judge. A *scoring* judge looks at one answer at a time and is compared by its scores; a
*pairwise* judge sees both answers. `compare` below asks either.

Scores are compared only within a judge and a prompt. `references` are the texts an answer may be held against: the
evaluation leaves the target out of them when the target is the opponent. A judge that reads only prompt and answer
ignores them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from plad.config.engines import BudgetSection
from plad.config.judges import EmbeddingJudge as EmbeddingSection
from plad.config.judges import LlmJudge as LlmSection
from plad.config.judges import ReferenceJudge as ReferenceSection
from plad.config.judges import RewardJudge as RewardSection
from plad.config.judges import VerifiableJudge as VerifiableSection
from plad.records import Example, Verdict

ScoringSection = ReferenceSection | RewardSection | EmbeddingSection | VerifiableSection
JudgeSection = ScoringSection | LlmSection


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge says of two answers.

    Attributes:
        verdict: of the first one.
        score, opponent_score: in the judge's own unit.
    """

    verdict: Verdict
    score: float
    opponent_score: float


@runtime_checkable
class ScoringJudge(Protocol):
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


@runtime_checkable
class PairwiseJudge(Protocol):
    """Compares answers."""

    name: str

    def compare(
        self,
        examples: Sequence[Example],
        ours: Sequence[str],
        theirs: Sequence[str],
        references: Sequence[Sequence[str]],
    ) -> list[Comparison | None]:
        """One comparison a row; None where the judge can't judge."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a reader must know to trust the verdicts: rule, model, how often order decided."""
        ...


Judge = ScoringJudge | PairwiseJudge


def compare(
    judge: Judge,
    examples: Sequence[Example],
    ours: Sequence[str],
    theirs: Sequence[str],
    references: Sequence[Sequence[str]],
) -> list[Comparison | None]:
    """Compare N answers with N others to the same prompts, by whatever kind of judge."""
    if isinstance(judge, ScoringJudge):
        scores = (judge.score(examples, ours, references), judge.score(examples, theirs, references))
        return compare_scores(ours, theirs, *scores)
    return judge.compare(examples, ours, theirs, references)


def compare_scores(
    ours: Sequence[str], theirs: Sequence[str], scores: Sequence[float | None], opponent_scores: Sequence[float | None]
) -> list[Comparison | None]:
    """Compare N answers with N others by their scores: the higher one wins.

    Returns:
        None where a score is missing. Equal texts tie, whatever rounding did to their scores.
    """
    found: list[Comparison | None] = []
    for text, other, a, b in zip(ours, theirs, scores, opponent_scores, strict=True):
        if a is None or b is None:
            found.append(None)
        elif text == other or a == b:
            found.append(Comparison(Verdict.TIE, a, b))
        else:
            found.append(Comparison(Verdict.WIN if a > b else Verdict.LOSS, a, b))
    return found


OpenLedger = Callable[[], AbstractContextManager[Any]]


def load_scoring_judge(section: ScoringSection, *, stemmer: bool = False) -> ScoringJudge:
    """The scoring judge that a config section names.

    Args:
        stemmer: for the reference judge.

    Raises:
        PolicyError: a judge's model can't be used.
        ConfigError: a verifiable judge lacks its function.
    """
    if isinstance(section, VerifiableSection):
        from plad.judges.verifiable import VerifiableJudge

        return VerifiableJudge(section)
    if isinstance(section, RewardSection):
        from plad.judges.reward import RewardJudge

        return RewardJudge.load(section)
    if isinstance(section, EmbeddingSection):
        from plad.judges.embedding import EmbeddingJudge

        return EmbeddingJudge.load(section)
    from plad.judges.reference import ReferenceJudge

    return ReferenceJudge(stemmer=stemmer)


def load_judge(
    section: JudgeSection,
    *,
    stemmer: bool = False,
    open_ledger: OpenLedger | None = None,
    seed: int = 0,
    budget: BudgetSection | None = None,
) -> Judge:
    """The judge of either kind that a config section names; see `load_scoring_judge`.

    Args:
        open_ledger: opens the ledger of an LLM judge's replies; without it they are forgotten.
        seed: of the run.
        budget: of the run, which an LLM judge's questions may not pass.

    Raises:
        ConfigError: an LLM judge lacks its key.
    """
    if not isinstance(section, LlmSection):
        return load_scoring_judge(section, stemmer=stemmer)
    from plad.answers.ledger import Ledger
    from plad.judges.llm import LlmJudge

    return LlmJudge(section, open_ledger or (lambda: Ledger(":memory:")), seed=seed, budget=budget)


def load_judges(sections: Sequence[JudgeSection], **options: Any) -> list[Judge]:
    """All judges of a config, with different names; `options` are those of `load_judge`."""
    judges: list[Judge] = []
    for section in sections:
        judge = load_judge(section, **options)
        taken = {j.name for j in judges}
        if judge.name in taken:
            judge.name = next(f"{judge.name}-{i}" for i in range(2, 100) if f"{judge.name}-{i}" not in taken)
        judges.append(judge)
    return judges
