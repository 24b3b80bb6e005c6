"""The evaluation's files: eval/judgements.parquet and eval/answers.jsonl."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plad.errors import DataError
from plad.records import Example, Generation, Judgement, Verdict
from plad.rundir.atomic import atomic_file

_JUDGEMENTS = pa.schema(
    [
        ("example_id", pa.string()),
        ("judge", pa.string()),
        ("system", pa.string()),
        ("opponent", pa.string()),
        ("verdict", pa.string()),
        ("score", pa.float64()),
        ("opponent_score", pa.float64()),
    ]
)


def write_judgements(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write judgements as parquet, whole or not at all."""
    rows = [{**asdict(j), "verdict": j.verdict.value} for j in judgements]
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_JUDGEMENTS), temporary)


def read_judgements(path: Path) -> list[Judgement]:
    """Read back what `write_judgements` wrote."""
    rows = pq.read_table(path, schema=_JUDGEMENTS).to_pylist()
    return [Judgement(**{**row, "verdict": Verdict(row["verdict"])}) for row in rows]


def write_answers(path: Path, examples: Sequence[Example], answers: Mapping[str, Mapping[str, Generation]]) -> None:
    """Write all systems' answers, one line a test row: {"id", "answers": {system: {"text", "outcome", "tokens"}}}."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as f:
        for e in examples:
            found = {system: rows[e.id] for system, rows in answers.items() if e.id in rows}
            row = {
                "id": e.id,
                "answers": {
                    system: {"text": g.text, "outcome": g.outcome.value, "tokens": len(g.token_ids)}
                    for system, g in found.items()
                },
            }
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_answers(path: Path) -> Iterator[dict[str, Any]]:
    """The rows that `write_answers` wrote.

    Raises:
        DataError: a line is not such a row.
    """
    with path.open(encoding="utf-8") as f:
        for number, line in enumerate(f, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if (
                not isinstance(row, dict)
                or not isinstance(row.get("id"), str)
                or not isinstance(row.get("answers"), dict)
            ):
                raise DataError("not a row of answers", where=f"{path}:{number}", fix="run the evaluation again")
            yield row
