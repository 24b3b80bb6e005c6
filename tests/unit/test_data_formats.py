"""The data files of a run, and that TRL reads the pairs."""

from dataclasses import replace
from importlib import import_module

import pytest

from plad.data.formats import (
    iter_pairs_parquet,
    pair_to_trl,
    read_examples_jsonl,
    read_pairs_parquet,
    write_examples_jsonl,
    write_pairs_parquet,
)
from plad.errors import DataError
from plad.records import Example, Pair

MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi  there"})
PLAIN = [
    Pair("a#0", "P", " chosen ", "rejected", "teacher", "student", (3, 4, 2)),
    Pair("b#0", "日本 \u2028 x", "y", "z", "teacher", "student"),
]
CHAT = [Pair("a#0", MESSAGES, "chosen", "rejected", "teacher", "student", (1,))]


def test_examples_come_back_as_written(tmp_path):
    examples = [Example("a", "P\n\u2028é", ("r1", "r2")), Example("b", MESSAGES)]
    write_examples_jsonl(tmp_path / "x.jsonl", examples)
    assert read_examples_jsonl(tmp_path / "x.jsonl") == examples


@pytest.mark.parametrize("content", ['{"id": "a"', '{"id": "a"}', "[1]"])
def test_a_damaged_or_missing_file_names_the_way_out(tmp_path, content):
    for damage in (lambda f: None, lambda f: f.write_text(content)):
        damage(tmp_path / "x.jsonl")
        with pytest.raises(DataError, match="plad run CONFIG makes it again"):
            read_examples_jsonl(tmp_path / "x.jsonl")


MEASURED = [
    replace(PLAIN[0], id="m#0-0", values={"quality": (2.5, -1.0), "similarity": (0.1, 0.2)}),
    replace(PLAIN[0], id="m#0-1", values={"quality": (1 / 3, 0.0)}),
]


@pytest.mark.parametrize("pairs", [PLAIN, CHAT, MEASURED, []], ids=["plain", "conversational", "measured", "none"])
def test_pairs_come_back_as_written(tmp_path, pairs):
    write_pairs_parquet(tmp_path / "pairs.parquet", pairs)
    assert read_pairs_parquet(tmp_path / "pairs.parquet") == pairs


def test_the_first_pairs_can_be_read_alone(tmp_path):
    write_pairs_parquet(tmp_path / "pairs.parquet", PLAIN)
    assert next(iter_pairs_parquet(tmp_path / "pairs.parquet")) == PLAIN[0]


def test_mixed_prompts_are_refused(tmp_path):
    with pytest.raises(DataError, match="mixed"):
        write_pairs_parquet(tmp_path / "pairs.parquet", PLAIN + CHAT)
    assert not list(tmp_path.iterdir())


def test_a_damaged_pairs_file_names_the_way_out(tmp_path):
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="plad run CONFIG makes it again"):
        read_pairs_parquet(tmp_path / "pairs.parquet")


@pytest.mark.parametrize("pairs", [PLAIN, CHAT], ids=["plain", "conversational"])
def test_trl_takes_the_pairs_as_a_preference_data_set(tmp_path, pairs):
    datasets = import_module("datasets")
    data_utils = import_module("trl.data_utils")
    write_pairs_parquet(tmp_path / "pairs.parquet", pairs)
    table = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "pairs.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(table) == len(pairs)
    assert data_utils.is_conversational(table[0]) == (pairs is CHAT)
    row = {name: table[0][name] for name in ("prompt", "chosen", "rejected")}
    assert row == pair_to_trl(pairs[0])
    assert data_utils.maybe_extract_prompt(row)["prompt"] == row["prompt"]
