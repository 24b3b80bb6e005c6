"""Other people's preferences in, ours out: every shape means the same pair, and the readers of others take ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from plad.config.pairs import PreferenceColumns
from plad.data.preferences import Preference, read_preferences
from plad.data.sources import BadRowsError

USER = [{"role": "user", "content": "q"}]
SYSTEM = [{"role": "system", "content": "s"}, *USER]


def read(folder: Path, *rows: Any, **columns: str) -> list[Preference]:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_preferences(str(folder / "p.jsonl"), PreferenceColumns(**columns)).rows


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "q"),
        ({"prompt": USER, "chosen": [said("a")], "rejected": [said("b")]}, tuple(USER)),
        ({"chosen": [*USER, said("a")], "rejected": [*USER, said("b")]}, tuple(USER)),
        (
            {"prompt": "q", "chosen": [*USER, said("a")], "rejected": [*USER, said("b")], "score_chosen": 8.0},
            tuple(USER),
        ),
        ({"chosen": [*SYSTEM, said("a")], "rejected": [*SYSTEM, said("b")]}, tuple(SYSTEM)),
        ({"question": "q", "system": "s", "chosen": "a", "rejected": "b"}, tuple(SYSTEM)),
        ({"question": "q", "system": "", "chosen": "a", "rejected": "b"}, "q"),
        ({"instruction": "q", "input": "", "chosen": "a", "rejected": "b"}, "q"),
        ({"instruction": "q", "input": "more", "chosen": "a", "rejected": "b"}, "q\n\nmore"),
        (
            {
                "instruction": "q",
                "completions": [
                    {"response": "c", "overall_score": 5.0},
                    {"response": "b", "overall_score": 2},
                    {"response": "a", "overall_score": "8.5"},
                    {"response": "d", "overall_score": None},
                ],
            },
            "q",
        ),
    ],
    ids=[
        "trl",
        "trl-chat",
        "implicit",
        "ultrafeedback-binarized",
        "system",
        "orca",
        "no-system",
        "alpaca",
        "input",
        "ultrafeedback",
    ],
)
def test_every_shape_means_the_same_pair(tmp_path: Path, row: Any, prompt: Any) -> None:
    (found,) = read(tmp_path, row)
    assert (found.prompt, found.chosen, found.rejected, found.tie) == (prompt, "a", "b", False)


def test_completions_of_equal_score_are_a_tie(tmp_path: Path) -> None:
    completions = [{"response": t, "overall_score": 3} for t in "ab"]
    (found,) = read(tmp_path, {"instruction": "q", "completions": completions})
    assert found.tie
    assert {found.chosen, found.rejected} == {"a", "b"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"chosen": [*USER, said("a")], "rejected": [*SYSTEM, said("b")]}, "differ before their last message"),
        (
            {"prompt": "other", "chosen": [*USER, said("a")], "rejected": [*USER, said("b")]},
            "not what the conversations",
        ),
        ({"instruction": "q", "completions": [{"response": "a", "overall_score": 1}]}, "1 with a response and a score"),
        ({"chosen": "a", "rejected": "b"}, "no column 'prompt'"),
    ],
)
def test_a_row_of_no_shape_says_why(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(BadRowsError) as caught:
        read(tmp_path, row)
    assert why in str(caught.value)
