"""The reference judge: whose answer is closer to what other people wrote?"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import JsonValue

from plad.judges.base import JudgeKind, JudgeResources
from plad.records import Example


class ReferenceJudge(JudgeKind):
    """Scores an answer by ROUGE-L F1 against the references; against the target by those other than it."""

    type: Literal["reference"] = "reference"

    title: ClassVar[str] = "Likeness to the references"
    needs_references: ClassVar[bool] = True
    nearness: ClassVar[str] = "nearness to the target by ROUGE-L"

    def open(self, resources: JudgeResources) -> "ReferenceScorer":
        """It needs nothing."""
        return ReferenceScorer(stemmer=resources.stemmer)


class ReferenceScorer:
    """Scores an answer by ROUGE-L F1 against the best of the given references.

    It needs no model. A row without references can't be judged.
    """

    name = "reference"

    def __init__(self, *, stemmer: bool = False) -> None:
        from plad.judges.rouge import Rouge

        self._rouge = Rouge(("rougeL",), stemmer=stemmer)

    def score(
        self, examples: Sequence[Example], texts: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[float | None]:
        """ROUGE-L F1 of each text, 0 to 1; None where its row has no references."""
        best = [self._rouge.best(text, refs) for _, text, refs in zip(examples, texts, references, strict=True)]
        return [None if b is None else b["rougeL"] for b in best]

    def describe(self) -> dict[str, JsonValue]:
        """What a reader must know to trust the scores."""
        return {
            "type": "reference",
            "rule": "ROUGE-L F1 against the best reference other than the target; rows with one reference can't be "
            "judged against the target; between two systems every reference counts, and the nearer one wins",
        }
