"""Answers that exist already: which row answers which example, and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from plad.answers.file import AnswerColumns, AnswersFile, FileEngine
from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.data.sources import BadRowsError
from plad.errors import DataError
from plad.records import Example, Outcome

TALK = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})


def read(folder: Path, *rows: Any, **columns: str) -> AnswersFile:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileEngine(path=path.name, columns=AnswerColumns(**columns)).read("digest", folder)


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"prompt": "p", "text": "t"}, Example("any", "p")),
        ({"id": "e", "text": "t"}, Example("e", "p")),
        ({"id": 7, "text": "t"}, Example("7", "p")),
        ({"prompt": list(TALK), "text": "t"}, Example("any", TALK)),
        ({"prompt": [{"role": "user", "content": "p"}], "text": "t"}, Example("any", "p")),
        ({"prompt": "p", "text": "t"}, Example("any", ({"role": "user", "content": "p"},))),
        ({"id": "another scheme", "prompt": "p", "text": "t"}, Example("e", "p")),
    ],
)
def test_a_row_answers_the_example_of_its_id_or_prompt(tmp_path: Path, row: Any, example: Example) -> None:
    assert list(read(tmp_path, row).answers(example)) == ["t"]


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"prompt": "p", "text": "t"}, Example("p", "q")),
        ({"id": "e", "prompt": "p", "text": "t"}, Example("e", "q")),  # the id means another prompt here
        ({"id": "e", "text": "t"}, Example("f", "e")),
    ],
)
def test_and_no_other(tmp_path: Path, row: Any, example: Example) -> None:
    assert list(read(tmp_path, row).answers(example)) == []


def test_of_equal_prompts_each_has_the_answers_of_its_id(tmp_path: Path) -> None:
    rows = [{"id": i, "prompt": "p", "text": t} for i, t in (("a", "1"), ("b", "2"))]
    found = read(tmp_path, *rows)
    assert [list(found.answers(Example(i, "p"))) for i in ("a", "b", "c")] == [["1"], ["2"], ["1", "2"]]


def test_samples_are_the_rows_in_order_and_missing_ones_fail(tmp_path: Path) -> None:
    engine = read(tmp_path, {"prompt": "p", "text": " one "}, {"prompt": "p", "text": " \n"})
    with Ledger(":memory:") as ledger:
        examples = [Example("e", "p"), Example("f", "q")]
        found = answer(engine, examples, AnswerSet("teacher", "w", Sampling(0.7, 4, 3), 0), ledger)
        assert list(ledger.messages("teacher")) == ["no answer in answers.jsonl"]
    assert [(g.sample, g.text, g.outcome) for g in found[:3]] == [
        (0, "one", Outcome.OK),
        (1, "", Outcome.EMPTY),
        (2, "", Outcome.FAILED),
    ]
    assert {g.outcome for g in found[3:]} == {Outcome.FAILED}


def test_columns_have_the_names_they_have(tmp_path: Path) -> None:
    found = read(tmp_path, {"question": "p", "answer": "t"}, prompt="question", text="answer")
    assert list(found.answers(Example("e", "p"))) == ["t"]


def test_rows_that_cant_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRowsError) as caught:
        read(
            tmp_path, {"prompt": "p", "text": None}, {"text": "t"}, 3, {"id": True, "text": "t"}, {"id": 1, "text": "t"}
        )
    said = str(caught.value)
    assert "4 rows can't be used" in said
    for place, why in ((1, "text: expected the answer"), (2, "neither 'id' nor 'prompt'"), (3, "expected an object")):
        assert f"answers.jsonl:{place}: {why}" in said


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no answer"):
        read(tmp_path)
