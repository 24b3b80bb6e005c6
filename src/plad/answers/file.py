"""Answers that somebody has already: rows of a file, joined to the examples by id or by prompt."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plad.answers.engine import Record
from plad.answers.question import Question, Sampling, canonical_json
from plad.answers.reply import Reply
from plad.config.engines import AnswerColumns, FileEngine
from plad.data.read import parse_prompt
from plad.data.sources import BadRow, BadRowsError, read_rows
from plad.errors import DataError
from plad.records import Example, Outcome, Prompt

_SHOWN = 20  # bad rows named in an error


@dataclass(frozen=True)
class AnswersFile:
    """A file of answers as an engine.

    Attributes:
        found: (id, prompt) -> answers in the order of the file. A row with a prompt stands under (id, prompt) and
            under (None, prompt), so that an id which means something else elsewhere joins nothing wrong.
    """

    name: str
    digest: str
    found: Mapping[tuple[str | None, str | None], Sequence[str]]

    def spec(self) -> dict[str, Any]:
        """The file's content."""
        return {"engine": "file", "file": self.digest}

    def encode(self, example: Example) -> Any:
        """Id and prompt: what the file may join on."""
        return [example.id, example.prompt]

    def answers(self, example: Example) -> Sequence[str]:
        """The answers to an example, in the order of the file; none where it has none."""
        prompt = _join_key(example.prompt)
        for key in ((example.id, prompt), (None, prompt), (example.id, None)):
            if key in self.found:
                return self.found[key]
        return ()

    def lacking(self, examples: Iterable[Example]) -> int:
        """How many examples the file has no answer to."""
        return sum(not self.answers(e) for e in examples)

    def answer(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> None:
        """Give sample number k the k-th answer to its prompt; those the file lacks fail."""
        for question in questions:
            found = self.answers(question.example)
            if question.sample >= len(found):
                record(question, Reply(Outcome.FAILED, attempts=0, message=f"no answer in {self.name}"))
                continue
            text = found[question.sample].strip()
            record(question, Reply(Outcome.OK if text else Outcome.EMPTY, text, attempts=0))


def read_answers_file(section: FileEngine, digest: str, base: Path | None) -> AnswersFile:
    """Read a file of answers.

    Args:
        digest: fingerprint of its content.
        base: where a relative path starts.

    Raises:
        DataError: the file is missing, or holds rows that can't be used; the first of them are named.
    """
    answers: defaultdict[tuple[str | None, str | None], list[str]] = defaultdict(list)
    bad: list[BadRow] = []
    total_bad = 0
    for row in read_rows(section.path, base):
        try:
            if isinstance(row, BadRow):
                raise ValueError(row.why)
            found, prompt, text = _fields(row.value, section.columns)
        except ValueError as e:
            total_bad += 1
            bad += [BadRow(row.place, str(e))] if total_bad <= _SHOWN else []
            continue
        for key in {(found, prompt), (None, prompt)} if prompt is not None else {(found, None)}:
            answers[key].append(text)
    if total_bad:
        raise BadRowsError(section.path, bad, total_bad)
    if not answers:
        raise DataError("the file holds no answer", where=section.path, fix="give a file with at least one row")
    return AnswersFile(section.path, digest, dict(answers))


def _join_key(prompt: Prompt) -> str:
    """A prompt for joining: a conversation of one user message is its text."""
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    return canonical_json(prompt)


def _fields(value: Any, columns: AnswerColumns) -> tuple[str | None, str | None, str]:
    """Id, prompt and text of a row; one of id and prompt may be None.

    Raises:
        ValueError: it has neither, or no text.
    """
    if not isinstance(value, dict):
        raise ValueError('expected an object like {"prompt": ..., "text": ...}')
    text = value.get(columns.text)
    if not isinstance(text, str):
        raise ValueError(f"{columns.text}: expected the answer as text (the row has {', '.join(map(repr, value))})")
    found, prompt = value.get(columns.id), value.get(columns.prompt)
    if found is not None and (isinstance(found, bool) or not isinstance(found, str | int)):
        raise ValueError(f"{columns.id}: expected text or a whole number")
    if found is None and prompt is None:
        raise ValueError(f"neither {columns.id!r} nor {columns.prompt!r}; one of them joins the row to an example")
    name = None if found is None else str(found)
    return name, None if prompt is None else _join_key(parse_prompt(prompt, columns.prompt)), text
