"""CSV and TSV: the same examples as JSONL holds, and every row that can't be used with its line."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from plad.config.root import Columns
from plad.data import rows, tables
from plad.data.read import read_examples
from plad.data.rows import BadRowsError
from plad.errors import DataError
from tests.support.command import call
from tests.support.task import rows as task_rows
from tests.support.task import write_answers, write_task

ROWS = [
    {"id": "1", "prompt": 'He said "no", twice;\nthen left.', "reference": "a,b"},
    {"id": "2", "prompt": "ÄÖ\t'x' 漢字", "reference": " padded "},
    {"id": "3", "prompt": "x" * 200_000, "reference": "longer than csv's own limit"},
]


def table(delimiter: str = ",") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


def read(path: Path, content: str | bytes, **how: Any) -> Any:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_examples(str(path), Columns(), **how)


def why(path: Path, content: str | bytes) -> list[str]:
    """What is said of each bad row, without the file's name."""
    with pytest.raises(BadRowsError) as e:
        read(path, content, need_references=True)
    return [f"{row.place.removeprefix(str(path))}: {row.why}" for row in e.value.bad]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", table().encode()),
        ("a.csv", b"\xef\xbb\xbf" + table().encode()),
        ("a.csv", table(";").encode()),
        ("a.csv", table().replace("\r\n", "\n").encode()),
        ("a.csv.gz", gzip.compress(table().encode())),
        ("a.tsv", table("\t").encode()),
        ("a.tsv.gz", gzip.compress(table("\t").encode())),
    ],
    ids=["csv", "byte order mark", "semicolons", "LF", "gzip", "tsv", "tsv gzip"],
)
def test_a_table_holds_what_jsonl_holds(tmp_path: Path, name: str, content: bytes) -> None:
    plain = tmp_path / "a.jsonl"
    plain.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    expected = read_examples(str(plain), Columns())
    found = read(tmp_path / name, content)
    assert found.examples == expected.examples
    assert [p.rpartition(":")[2] for p in found.places] == ["2", "4", "5"], "a row is where it begins"


def test_an_empty_cell_is_no_value(tmp_path: Path) -> None:
    content = "id,prompt,references,completion\n,P,,c\n\n,Q,r,\n"
    first, second = read(tmp_path / "a.csv", content).examples
    assert (first.references, second.references) == (("c",), ("r",))
    assert len(first.id) == 16, "from its content"
    assert why(tmp_path / "b.csv", "prompt,reference\n,r\nP,r\n") == [
        ":2: prompt: null; expected text, or a list of "
        '{"role": ..., "content": text} that ends with the user'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "report"),
    [
        (b"P,r,more\n", ":2: 3 cells, but the header has 2; quote cells"),
        (b"P\n", ":2: 1 cells, but the header has 2"),
        (b'"P" x,r\n', ":2: not CSV: ',' expected after '\"'"),
        (b"caf\xe9,r\n", ":2: not UTF-8: byte 0xe9 at offset 20 of the file"),
        (b'"two\ncaf\xe9",r\n', ":3: not UTF-8: byte 0xe9"),
        (b"a\0b,r\n", ":2: prompt: holds a NUL character at position 1"),
    ],
)
def test_a_bad_row_is_named_and_the_next_one_read(tmp_path: Path, lines: bytes, report: str) -> None:
    content = b"prompt,reference\n" + lines + b"Q,s\n"
    (said,) = why(tmp_path / "a.csv", content)
    assert said.startswith(report)
    assert [e.prompt for e in read(tmp_path / "a.csv", content, skip_invalid=True).examples] == ["Q"]


def test_a_quote_that_is_never_closed_names_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = 'prompt,reference\nP,r\n"Q,s\nR,t\n'
    assert why(tmp_path / "a.csv", content) == [":3: a quote that opens in this row is never closed"]
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 30)
    said = why(tmp_path / "b.csv", 'prompt,reference\nP,r\n"Q' + "long,line\n" * 9)
    assert said[0] == ":3: a cell of more than 30 characters: is a quote never closed?"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file holds no row"),
        (b"prompt,reference\n", "the file holds no row"),
        (b"prompt,prompt\na,b\n", r"a\.csv:1: column 'prompt' stands twice in the header"),
        ("prompt,reference\na,b\n".encode("utf-16"), r"a\.csv:1: not UTF-8: byte 0xff at offset 0"),
    ],
)
def test_a_file_without_rows_or_columns_is_an_error(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(tmp_path / "a.csv", content)


def test_a_run_takes_tables_for_its_data_and_its_answers(tmp_path: Path) -> None:
    config = write_task(tmp_path)
    write_answers(tmp_path / "answers.jsonl", ("train", "test"))
    for split in ("train", "validation", "test", "answers"):
        given = [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
        with (tmp_path / f"{split}.csv").open("w", newline="") as f:
            writer = csv.writer(f)
            last = "text" if split == "answers" else "completion"
            writer.writerow(["prompt", last])
            writer.writerows([row["prompt"], row["text"] if last == "text" else row["references"][0]] for row in given)
    changes = [f"data.{split}={split}.csv" for split in ("train", "validation", "test")]
    teacher = "teacher={model: somebody, engine: {type: file, path: answers.csv}}"
    code, out, err = call("validate", config, *changes, teacher)
    assert code == 0, err
    assert "12 rows for fine-tuning, 12 for distillation, 4 for validation, 6 for test" in out
    assert "ok    teacher: answers in answers.csv" in out


# -- a wrong column ------------------------------------------------------------------------------------


def test_a_wrong_column_is_said_once_with_the_line_that_mends_it(tmp_path: Path) -> None:
    config = write_task(tmp_path)
    for split, n in (("train", 24), ("validation", 4), ("test", 6)):
        wrong = [{"question": r["prompt"], "answer": r["references"][0], "n": 1} for r in task_rows(split, n)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in wrong))
    for skip in ((), ("--skip-invalid",)):
        code, _, err = call("validate", config, *skip)
        assert code == 2
        assert err.count("no column") == 1
        said = " ".join(err.split())
        assert "no column 'prompt' (has 'question', 'answer', 'n')" in said
        assert "34 rows can't be used, and there is no other" in said
        assert "-> data.columns: {prompt: question, reference: answer}" in said
        assert all(f"{split}.jsonl" in said for split in ("train", "validation", "test"))
    assert call("validate", config, "data.columns={prompt: question, reference: answer}")[0] == 0


@pytest.mark.parametrize(
    ("row", "columns", "fix"),
    [
        ({"promt": "P", "Target": "r"}, Columns(), "{prompt: promt, reference: Target}"),
        ({"prompt": "P", "summary": "r"}, Columns(), "{reference: summary}"),
        ({"prompt": "P", "gold text!": "r"}, Columns(), "{reference: NAME}, where NAME is one of prompt, gold text!"),
        ({"text": "P", "solution": "r"}, Columns(prompt="question"), "{prompt: text, reference: solution}"),
        ({"prompt": "P", "reference": "r", "key": "1"}, Columns(id="keys"), "{id: key}"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b"}, Columns(dialogue="choosen"), "{dialogue: chosen}"),
        ({"a: b": "P", "answer": "r"}, Columns(prompt="a b"), '{prompt: "a: b", reference: answer}'),
    ],
)
def test_the_columns_that_are_meant(tmp_path: Path, row: dict[str, Any], columns: Columns, fix: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(BadRowsError) as e:
        read_examples(str(path), columns, need_references=True)
    assert (e.value.fix or "").splitlines()[0] == f"data.columns: {fix}"


def test_rows_of_other_columns_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "P"}\n' + '{"q": "x"}\n' * 30 + '{"prompt": 3}\n' + '{"p": "x"}\n')
    with pytest.raises(BadRowsError) as e:
        read_examples(str(path), Columns())
    assert [row.place.rpartition(":")[2] for row in e.value.bad] == ["2", "32", "33"]
    assert "32 rows can't be used\n" in str(e.value)
    assert "... and 29 more" in str(e.value)
    assert rows.once([e.value, e.value]) == [e.value, e.value], "only what is the same for a whole file is merged"
