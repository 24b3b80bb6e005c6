"""Judges: which of two answers is better? There are two kinds.

    judge.score(examples, texts, references)            -> one score a text; the higher score wins
    judge.compare(examples, ours, theirs, references)   -> one comparison a row

each with None where it can't judge. A *scoring* judge looks at one answer at a time and is compared by its scores; a
*pairwise* judge sees both answers. `compare` below asks either.

Scores are compared only within a judge and a prompt. `references` are the texts an answer may be held against: the
evaluation leaves the target out of them when the target is the opponent. A judge that reads only prompt and answer
ignores them.

A judge is one file here, or in another package that names it in the entry-point group `plad.judges`: a section derived
from `JudgeKind`, which a config names by its `type`, and what it opens.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from plad.answers.ledger import Ledger
from plad.config.engines import BudgetSection
from plad.config.judges import JudgeSection
from plad.errors import Findings
from plad.records import Example, Message, Verdict


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

    def describe(self) -> dict[str, JsonValue]:
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

    def describe(self) -> dict[str, JsonValue]:
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
    comparisons: list[Comparison | None] = []
    for text, other, a, b in zip(ours, theirs, scores, opponent_scores, strict=True):
        if a is None or b is None:
            comparisons.append(None)
        elif text == other or a == b:
            comparisons.append(Comparison(Verdict.TIE, a, b))
        else:
            comparisons.append(Comparison(Verdict.WIN if a > b else Verdict.LOSS, a, b))
    return comparisons


@dataclass(frozen=True, slots=True)
class JudgeResources:
    """What a run lends a judge.

    Attributes:
        stemmer: Porter-stem English words before ROUGE.
        seed: of the run; it salts the labels of questions.
        budget: of the run, which questions may not pass.
        open_ledger: opens the ledger of replies; without it they are forgotten.
    """

    stemmer: bool = False
    seed: int = 0
    budget: BudgetSection | None = None
    open_ledger: Callable[[], AbstractContextManager[Ledger]] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a judge asks of a model for one comparison, for who plans the cost.

    Attributes:
        system: whose answers the ledger calls the replies.
        questions: so many.
        frame: a question but for the request and the answers.
        max_new_tokens: most tokens of a reply.
        canaries: further questions among so many comparisons.
    """

    system: str
    questions: int
    frame: tuple[Message, ...]
    max_new_tokens: int
    canaries: Callable[[int], int] = lambda comparisons: 0


class JudgeKind(JudgeSection):
    """Base of all judges' sections."""

    @abstractmethod
    def open(self, resources: JudgeResources) -> Judge:
        """The judge at work.

        Raises:
            PladError: a model, key or function is missing or can't be used.
        """

    def require(self) -> None:
        """Find out before anything is trained what only a person can give.

        Raises:
            ConfigError: it is missing.
        """

    def inputs(self) -> dict[str, JsonValue]:
        """All that its verdicts depend on beside the answers."""
        return self.shaping()

    @property
    def asked(self) -> Asked | None:
        """What a comparison asks of a model behind an endpoint; None where none is asked."""
        return None

    def able(self, rows: Sequence[Example], *, against_target: bool) -> int:
        """How many rows it can judge, as far as their shape says.

        Args:
            against_target: answers meet the target, which is then no reference; else they meet each other.
        """
        if self.needs_references:
            return sum(len(e.references) > against_target for e in rows)
        return sum(e.target is not None or not against_target for e in rows)

    def check(self, findings: Findings, place: str, rows: Sequence[Example] | None, *, against_target: bool) -> None:
        """Everything that can be found wrong before a model is loaded.

        Args:
            place: where the config names the judge.
            rows: that it will judge; None where the data has problems.
            against_target: as in `able`.
        """
        if self.needs_references and rows is not None:
            judged = self.able(rows, against_target=against_target)
            if not against_target:
                what = f"{judged} of {len(rows)} distillation rows have a reference"
            elif judged == len(rows):
                what = "every test row has a reference beside its target"
            else:
                what = f"only {judged} of {len(rows)} test rows have a reference beside their target"
                what += "; the others are not judged against it"
            all_judged = judged == len(rows) or not against_target
            findings.add("ok" if all_judged else "note", place, f"{self.tag()}: {what}")


def kind_of(section: JudgeSection) -> JudgeKind:
    """The section as what a run works with."""
    return section.derived(JudgeKind)


def open_judges(sections: Sequence[JudgeKind], resources: JudgeResources) -> list[Judge]:
    """All judges of a config, with different names."""
    judges: list[Judge] = []
    for section in sections:
        judge = section.open(resources)
        taken = {j.name for j in judges}
        if judge.name in taken:
            judge.name = next(f"{judge.name}-{i}" for i in range(2, 100) if f"{judge.name}-{i}" not in taken)
        judges.append(judge)
    return judges
