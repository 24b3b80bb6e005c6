"""The evaluation's files: eval/judgements.parquet and eval/answers.jsonl."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from plad.data.parquet import Column, iter_parquet, write_parquet
from plad.errors import DataError
from plad.records import Example, Generation, Judgement
from plad.rundir.atomic import atomic_file
from plad.rundir.reading import reading

_JUDGEMENTS: dict[str, Column] = {
    **dict.fromkeys(("example_id", "judge", "system", "opponent", "verdict"), "text"),
    **dict.fromkeys(("score", "opponent_score"), "number"),
}
_JUDGEMENT = TypeAdapter(Judgement)


class GivenAnswer(TypedDict, total=False):
    """A system's answer to a test row, and how it ended."""

    text: str
    outcome: str
    tokens: int


class AnswersRow(TypedDict):
    """All systems' answers to a test row."""

    id: str
    answers: dict[str, GivenAnswer]


_ROW = TypeAdapter(AnswersRow)


def write_judgements(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write judgements as parquet, whole or not at all."""
    write_parquet(path, ({**asdict(j), "verdict": j.verdict.value} for j in judgements), _JUDGEMENTS)


def read_judgements(path: Path) -> list[Judgement]:
    """Read back what `write_judgements` wrote."""
    with reading(path):
        return [_JUDGEMENT.validate_python(row) for row in iter_parquet(path)]


def write_answers(path: Path, examples: Sequence[Example], answers: Mapping[str, Mapping[str, Generation]]) -> None:
    """Write all systems' answers, one line a test row: {"id", "answers": {system: {"text", "outcome", "tokens"}}}."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as f:
        for e in examples:
            given = {
                system: {"text": rows[e.id].text, "outcome": rows[e.id].outcome, "tokens": len(rows[e.id].token_ids)}
                for system, rows in answers.items()
                if e.id in rows
            }
            f.write(json.dumps({"id": e.id, "answers": given}, ensure_ascii=False) + "\n")


def read_answers(path: Path) -> Iterator[AnswersRow]:
    """The rows that `write_answers` wrote.

    Raises:
        DataError: a line is not such a row.
    """
    with reading(path, kind=DataError), path.open(encoding="utf-8") as f:
        for number, line in enumerate(f, start=1):
            with reading(path, what="not a row of answers", line=number, kind=DataError):
                row = _ROW.validate_json(line)
            yield row
