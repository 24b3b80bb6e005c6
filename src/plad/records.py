"""What the files of a run hold: examples, generations, pairs and judgements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from typing_extensions import TypedDict


class Message(TypedDict):
    """One turn of a conversational prompt."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]
"""A plain prompt, or the messages of a conversation."""


TARGET, TEACHER, STUDENT_SFT, STUDENT = SYSTEMS = ("target", "teacher", "student_sft", "student")
"""What every run evaluates: the data's targets, the teacher, and the student before and after distillation."""


class Outcome(StrEnum):
    """How a generation ended."""

    OK = "ok"
    TRUNCATED = "truncated"  # max_new_tokens reached before an end-of-sequence token
    EMPTY = "empty"  # nothing but white space
    TOO_LONG = "too_long"  # prompt + max_new_tokens exceeds the context; never sent
    REFUSED = "refused"  # the model declined to answer
    FILTERED = "filtered"  # a provider's content filter held it back
    BAD_REQUEST = "bad_request"  # a provider can't process this very prompt; not asked again
    FAILED = "failed"  # no answer after all attempts; asked again by the next run


ANSWERED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.EMPTY})
"""Outcomes that come with a text (an empty one at worst); the others have none."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task.

    Attributes:
        id: given by the data, or derived from the prompt's content; unique in a file.
        prompt: plain text or messages.
        references: human targets; the first is *the* target. Empty where the data has none.
    """

    id: str
    prompt: Prompt
    references: tuple[str, ...] = ()

    @property
    def target(self) -> str | None:
        """The human target, or None where the data has none."""
        return self.references[0] if self.references else None


@dataclass(frozen=True, slots=True)
class Generation:
    """One sampled answer.

    Attributes:
        example_id: the example answered.
        sample: sample number, from 0.
        text: the decoded answer, without special tokens, stripped of outer white space.
        token_ids: the answer in the generating policy's own vocabulary, with its
            end-of-sequence token if it produced one.
        outcome: how it ended.
        prompt_tokens: length of the encoded prompt.
    """

    example_id: str
    sample: int
    text: str
    token_ids: tuple[int, ...]
    outcome: Outcome
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference pair: the teacher's answer is chosen and the student's rejected, or as a scorer says.

    Source: PLaD, Eq. 3.

    Attributes:
        id: made by `pair_id`: ``<example id>#<teacher's sample>-<student's sample>``, also where the two are swapped;
            ``<example id>#s<sample>-s<sample>`` for two answers of the student.
        chosen_token_ids, rejected_token_ids: the student's own tokens, so that training scores exactly what
            was sampled; empty where the text came from elsewhere.
        values: what was measured of the chosen and of the rejected text, by name; `quality` is what a scorer said.
    """

    id: str
    prompt: Prompt
    chosen: str
    rejected: str
    chosen_source: str
    rejected_source: str
    rejected_token_ids: tuple[int, ...] = ()
    chosen_token_ids: tuple[int, ...] = ()
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    @property
    def example_id(self) -> str:
        """The example whose answers it compares."""
        return self.id.rpartition("#")[0]


def pair_id(example_id: str, answers: str = "0-0") -> str:
    """The id of a pair of an example's answers."""
    return f"{example_id}#{answers}"


class Verdict(StrEnum):
    """Outcome of comparing a candidate answer with an opponent's."""

    WIN = "win"
    TIE = "tie"
    LOSS = "loss"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One comparison of a system's answer with its opponent's by one judge.

    Attributes:
        score, opponent_score: the judge's scores, in the judge's own unit.
    """

    example_id: str
    judge: str
    system: str
    opponent: str
    verdict: Verdict
    score: float
    opponent_score: float
