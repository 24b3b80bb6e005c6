"""Answers that somebody has already: rows of a file, joined to the examples by id or by prompt."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from plad.answers.engine import EngineKind, EngineResources, Inspection, Record
from plad.answers.question import Question, Sampling, Spec, canonical_json
from plad.answers.reply import Reply
from plad.config.base import Section
from plad.config.models import TeacherSection
from plad.data.read import parse_prompt
from plad.data.sources import RowReader, source_fingerprint
from plad.errors import DataError, Findings
from plad.records import Example, Outcome, Prompt

_Joins = tuple[str | None, str | None]  # an example's id and its prompt: what an answer is found by


@dataclass(frozen=True)
class AnswersFile:
    """A file of answers as an engine.

    Attributes:
        by_key: (id, prompt) -> answers in the order of the file. A row with a prompt stands under (id, prompt) and
            under (None, prompt), so that an id which means something else elsewhere joins nothing wrong.
    """

    name: str
    digest: str
    by_key: Mapping[_Joins, Sequence[str]]

    def spec(self) -> Spec:
        """The file's content."""
        return {"engine": "file", "file": self.digest}

    def encode(self, example: Example) -> list[str | Prompt]:
        """Id and prompt: what the file may join on."""
        return [example.id, example.prompt]

    def answers(self, example: Example) -> Sequence[str]:
        """The answers to an example, in the order of the file; none where it has none."""
        prompt = _join_key(example.prompt)
        for key in ((example.id, prompt), (None, prompt), (example.id, None)):
            if key in self.by_key:
                return self.by_key[key]
        return ()

    def lacking(self, examples: Iterable[Example]) -> int:
        """How many examples the file has no answer to."""
        return sum(not self.answers(e) for e in examples)

    def answer(self, questions: Iterable[Question[object]], sampling: Sampling, record: Record) -> None:
        """Give sample number k the k-th answer to its prompt; those the file lacks fail."""
        for question in questions:
            answers = self.answers(question.example)
            if question.sample >= len(answers):
                record(question, Reply(Outcome.FAILED, attempts=0, message=f"no answer in {self.name}"))
                continue
            text = answers[question.sample].strip()
            record(question, Reply(Outcome.OK if text else Outcome.EMPTY, text, attempts=0))


class AnswerColumns(Section):
    """Names of the columns of a file of answers."""

    id: str = Field(default="id", description="The example's id; joins where a row has one.")
    prompt: str = Field(default="prompt", description="The example's prompt; joins where a row has no id.")
    text: str = Field(default="text", description="The answer.")


class FileEngine(EngineKind):
    """Answers that exist already; `teacher.model` says who wrote them."""

    type: Literal["file"] = "file"
    path: str = Field(
        description='JSONL, CSV, TSV (each also .gz) or parquet of {"prompt" or "id", "text"}; several rows, several '
        "answers."
    )
    columns: AnswerColumns = AnswerColumns()

    behind: ClassVar[str] = "a file"

    def open(self, resources: EngineResources) -> AnswersFile:
        """The answers of the file.

        Raises:
            DataError: the file is missing, or holds rows that can't be used; the first of them are named.
        """
        return self.read(resources.weights, resources.base)

    def source(self, teacher: TeacherSection, base: Path) -> dict[str, JsonValue]:
        """The file's content, and how it is read."""
        columns = self.columns.model_dump(mode="json")
        return {"type": self.type, "file": source_fingerprint(self.path, base), "columns": columns}

    def check(self, findings: Findings, task: Inspection) -> None:
        """Read the file, and look for prompts that it has no answer to."""
        answers = self.read("", task.base)
        findings.add("ok", "teacher", f"answers in {self.path}")
        if task.distill is None or task.test is None:
            return
        lacking, total = answers.lacking(task.distill), len(task.distill)
        if lacking > task.max_failed * total:
            raise DataError(
                f"{lacking} of {total} distillation prompts have no answer",
                where=self.path,
                fix="add a row with each prompt (or its id) and text\nor allow them to be missing: generate.max_failed",
            )
        if lacking:
            findings.add("note", "teacher", f"{lacking} of {total} distillation prompts have no answer")
        if lacking := answers.lacking(task.test):
            what = f"{lacking} of {len(task.test)} test rows have no answer: it is left out of the evaluation"
            findings.add("note", "teacher", what)

    def read(self, digest: str, base: Path | None) -> AnswersFile:
        """The answers of the file.

        Args:
            digest: fingerprint of its content.
            base: where a relative path starts.

        Raises:
            DataError: as `open`.
        """
        answers: defaultdict[_Joins, list[str]] = defaultdict(list)
        reader = RowReader(self.path, base)
        for example_id, prompt, text in reader.read(lambda row: _fields(row.value, self.columns)):
            keys = {(example_id, prompt), (None, prompt)} if prompt is not None else {(example_id, None)}
            for key in keys:
                answers[key].append(text)
        reader.check()
        if not answers:
            raise DataError("the file holds no answer", where=self.path, fix="give a file with at least one row")
        return AnswersFile(self.path, digest, dict(answers))


def _join_key(prompt: Prompt) -> str:
    """A prompt for joining: a conversation of one user message is its text."""
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    return canonical_json(prompt)


def _fields(value: JsonValue, columns: AnswerColumns) -> tuple[str | None, str | None, str]:
    """Id, prompt and text of a row; one of id and prompt may be None.

    Raises:
        ValueError: it has neither, or no text.
    """
    if not isinstance(value, dict):
        raise ValueError('expected an object like {"prompt": ..., "text": ...}')
    text = value.get(columns.text)
    if not isinstance(text, str):
        raise ValueError(f"{columns.text}: expected the answer as text (the row has {', '.join(map(repr, value))})")
    name, prompt = value.get(columns.id), value.get(columns.prompt)
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise ValueError(f"{columns.id}: expected text or a whole number")
    if name is None and prompt is None:
        raise ValueError(f"neither {columns.id!r} nor {columns.prompt!r}; one of them joins the row to an example")
    joined = None if prompt is None else _join_key(parse_prompt(prompt, columns.prompt))
    return None if name is None else str(name), joined, text
