"""Checksums of recorded answers: every column of an answer counts, old files are read, rows stay cheap."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from plad.answers.checksum import ANSWER
from plad.answers.ledger import Ledger
from plad.answers.question import Question
from plad.answers.reply import Reply
from plad.errors import RunDirError
from plad.records import Example, Outcome

OTHER = {"sample": 1, "outcome": "truncated", "token_ids": "[1,2,4]", "prompt_tokens": 6}


def put(ledger: Ledger, key: str, text: str = "so 漢字 \x00\ufffd") -> None:
    reply = Reply(Outcome.OK, text, (1, 2, 3), 5, 3)
    ledger.put(Question(key, f"ask {key}", Example("e", ""), 0, 3, None, {}), "teacher", reply)


def edit(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "generations.sqlite"
    with Ledger(file) as ledger:
        put(ledger, "k")
        put(ledger, "l")
    return file


@pytest.mark.parametrize("column", ANSWER)
def test_every_column_of_an_answer_counts(column: str, path: Path) -> None:
    edit(path, f"UPDATE generations SET {column} = ? WHERE key = 'k'", OTHER.get(column, "other"))
    with Ledger(path, readonly=True) as ledger:
        found = ledger.check()
        assert (found.verified, len(found.damaged)) == (1, 1)
        if column != "key":
            with pytest.raises(RunDirError, match="its checksum differs; key k"):
                ledger.asked(["ask k"])
        assert list(ledger.asked(["ask l"])) == ["ask l"]


@pytest.mark.parametrize(("column", "value"), [("token_ids", "[1,"), ("outcome", "fine"), ("text", b"\xff")])
def test_what_can_not_be_read_at_all_is_named_too(column: str, value: Any, path: Path) -> None:
    edit(path, f"UPDATE generations SET {column} = ?, checksum = NULL WHERE key = 'k'", value)
    if column == "text":
        edit(path, "UPDATE generations SET text = CAST(text AS TEXT), checksum = 'x' WHERE key = 'k'")
    with Ledger(path, readonly=True) as ledger, pytest.raises(RunDirError, match=r"prompt e is damaged .*key k"):
        ledger.get_many(["k"])


def without_column(path: Path) -> None:
    edit(path, "ALTER TABLE generations DROP COLUMN checksum")
    edit(path, "PRAGMA user_version=3")


def test_rows_without_a_checksum_are_counted_and_read(path: Path) -> None:
    without_column(path)
    with Ledger(path, readonly=True) as ledger:  # as it is
        assert len(ledger.get_many(["k", "l"])) == 2
        assert ledger.check().unchecked == 2
    with Ledger(path) as ledger:  # brought up to date
        put(ledger, "m")
        assert len(ledger.get_many(["k", "l", "m"])) == 3
        found = ledger.check()
    assert (found.verified, found.unchecked, found.damaged) == (1, 2, [])


@pytest.mark.parametrize("old", [False, True])
def test_answers_of_another_ledger_bring_their_checksums_along(old: bool, path: Path, tmp_path: Path) -> None:
    if old:
        without_column(path)
    else:
        edit(path, "UPDATE generations SET text = 'sa' WHERE key = 'k'")
    with Ledger(tmp_path / "mine.sqlite") as ledger:
        assert ledger.take_over(path) == 2
        found = ledger.check()
    assert (found.verified, found.unchecked, len(found.damaged)) == ((0, 2, 0) if old else (1, 0, 1))


def test_what_is_taken_out_is_no_longer_there(path: Path) -> None:
    edit(path, "UPDATE generations SET text = 'sa' WHERE key = 'k'")
    with Ledger(path) as ledger:
        ledger.finish("batch", "b", {"ok": 2})
        ledger.take_out(ledger.check().damaged)
        assert list(ledger.asked(["ask k", "ask l"])) == ["ask l"]
        assert ledger.finished("batch", "b") is None
        assert not ledger.check().damaged


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("column", "value"), [("token_ids", "[1,"), ("token_ids", '"1"'), ("outcome", "nk")])
def test_a_row_that_is_no_answer_is_named_wherever_it_is_read_and_taken_out(
    column: str, value: str, checked: bool, path: Path
) -> None:
    edit(path, f"UPDATE generations SET {column} = ? WHERE key = 'k'", value)
    if not checked:
        edit(path, "UPDATE generations SET checksum = NULL")
    with Ledger(path) as ledger:
        readers = [lambda: list(ledger.rows()), lambda: list(ledger.table()), lambda: ledger.get_many(["k"])]
        for read in [*readers, *([lambda: ledger.outcomes(["l", "k"])] if column == "outcome" else [])]:
            with pytest.raises(RunDirError, match=r"teacher to prompt e is damaged .*key k"):
                read()
        found = ledger.check()
        assert [bad.key for bad in found.damaged] == ["k"]
        ledger.take_out(found.damaged)
        assert [row.generation.text for row in ledger.rows()] == [ledger.get_many(["l"])["l"].text]
        assert not ledger.check().damaged
