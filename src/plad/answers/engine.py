"""Who answers: a model in this process, a server, a file."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from plad.answers.question import Question, Sampling, Spec
from plad.answers.reply import Reply
from plad.records import Example

Encoded = TypeVar("Encoded")

Record = Callable[[Question[object], Reply], None]
"""Receives a question and how it ended; the reply is committed when it returns."""


class Engine(Protocol[Encoded]):
    """Turns prompts into replies.

    `Encoded` is a prompt as this engine sees it, in what JSON can hold: token ids, messages or text.
    """

    def spec(self) -> Spec:
        """What shapes every answer, apart from prompt, sampling and seed; never a secret."""
        ...

    def encode(self, example: Example) -> Encoded:
        """A prompt as it is sent."""
        ...

    def answer(self, questions: Iterable[Question[Encoded]], sampling: Sampling, record: Record) -> None:
        """Settle every question, in any order; questions are read as they are needed."""
        ...
