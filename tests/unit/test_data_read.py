"""Reading examples: formats, column mapping, ids, limits."""

import gzip
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plad.config.root import Columns
from plad.data import sources
from plad.data.read import read_examples
from plad.data.rows import BadRowsError
from plad.errors import DataError

CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def write(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_a_plain_row_is_read_with_its_references(tmp_path):
    source = write(tmp_path / "a.jsonl", {"id": "x", "prompt": "P", "references": ["one", "two"]})
    (example,) = read_examples(source, Columns()).examples
    assert (example.id, example.prompt, example.references, example.target) == ("x", "P", ("one", "two"), "one")


@pytest.mark.parametrize(
    ("row", "references"),
    [
        ({"prompt": "P"}, ()),
        ({"prompt": "P", "reference": "r"}, ("r",)),
        ({"prompt": "P", "completion": " blue."}, ("blue.",)),
        ({"prompt": CONVERSATION, "completion": [{"role": "assistant", "content": "c"}]}, ("c",)),
        ({"prompt": "P", "completion": "c", "references": ["r"]}, ("r",)),
        ({"prompt": "P", "completion": "c", "references": None}, ("c",)),
    ],
)
def test_the_target_comes_from_the_first_known_column(tmp_path, row, references):
    assert read_examples(write(tmp_path / "a.jsonl", row), Columns()).examples[0].references == references


def test_a_conversational_prompt_keeps_its_messages(tmp_path):
    (example,) = read_examples(write(tmp_path / "a.jsonl", {"prompt": CONVERSATION}), Columns()).examples
    assert example.prompt == tuple(CONVERSATION)


def test_columns_map_other_names(tmp_path):
    source = write(tmp_path / "a.jsonl", {"key": 7, "question": "Q", "answer": "A", "prompt": 3})
    columns = Columns(id="key", prompt="question", reference="answer")
    (example,) = read_examples(source, columns, need_references=True).examples
    assert (example.id, example.prompt, example.references) == ("7", "Q", ("A",))


def test_a_named_id_column_must_be_there(tmp_path):
    with pytest.raises(BadRowsError, match=r"no column 'key' \(has 'prompt'\)"):
        read_examples(write(tmp_path / "a.jsonl", {"prompt": "P"}), Columns(id="key"))


def test_gzip_and_parquet_hold_the_same_examples(tmp_path):
    rows = [{"id": str(i), "prompt": f"P{i}", "references": ["a", "b"]} for i in range(600)]
    plain = read_examples(write(tmp_path / "a.jsonl", *rows), Columns())
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_examples(str(packed), Columns()).examples == plain.examples
    table = read_examples(str(tmp_path / "a.parquet"), Columns())
    assert table.examples == plain.examples
    assert table.places[299] == f"{tmp_path / 'a.parquet'}:row 300"


def test_ids_come_from_the_content_where_the_data_has_none(tmp_path):
    rows = [{"prompt": "A"}, {"prompt": "B"}, {"prompt": "A"}]
    first = read_examples(write(tmp_path / "a.jsonl", *rows), Columns())
    a, b, again = (e.id for e in first.examples)
    assert again == f"{a}-2"
    assert b not in (a, again)
    grown = read_examples(write(tmp_path / "b.jsonl", {"prompt": "new"}, *reversed(rows)), Columns())
    assert {a, b, again} < {e.id for e in grown.examples}


def test_duplicate_prompts_are_kept_and_counted_after_normalisation(tmp_path):
    source = write(tmp_path / "a.jsonl", {"prompt": "Hello  World"}, {"prompt": "hello world\n"}, {"prompt": "Other"})
    result = read_examples(source, Columns())
    assert (len(result.examples), result.duplicates) == (3, 1)


def test_limit_reads_no_further(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"prompt": "A"}\n{"prompt": "B"}\nnot json\n')
    assert [e.prompt for e in read_examples(str(source), Columns(), limit=2).examples] == ["A", "B"]


def test_a_relative_source_is_found_beside_the_base(tmp_path):
    write(tmp_path / "a.jsonl", {"prompt": "A"})
    assert read_examples("a.jsonl", Columns(), base=tmp_path).examples[0].prompt == "A"


def test_reading_streams(tmp_path, monkeypatch):
    """Rows are handed on one by one: the first is there before the second is parsed."""
    source = write(tmp_path / "a.jsonl", {"prompt": "A"}, {"prompt": "B"})
    parsed = []
    parse = sources._parse_line
    monkeypatch.setattr(sources, "_parse_line", lambda *a: parsed.append(a) or parse(*a))
    rows = sources.read_rows(source)
    next(rows)
    assert len(parsed) == 1


def test_a_hub_name_is_loaded_by_split(monkeypatch):
    import datasets

    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return [{"prompt": "P", "completion": "C"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    result = read_examples("owner/name:train", Columns())
    assert (result.examples[0].prompt, result.places) == ("P", ["owner/name:train:row 1"])
    read_examples("owner/name/main:test", Columns())
    assert asked == [("owner/name", None, "train"), ("owner/name", "main", "test")]


def test_a_folder_of_a_hub_data_set_and_a_slice_of_a_split(monkeypatch):
    import datasets

    asked = []

    def load(name, config=None, *, split, data_dir=None):
        if config is not None:
            raise ValueError(f"BuilderConfig '{config}' not found. Available: ['default']")
        asked.append((name, data_dir, split))
        return [{"prompt": "P", "completion": " C\n"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    result = read_examples("owner/name/helpful-base:train[95%:]", Columns())
    assert asked == [("owner/name", "helpful-base", "train[95%:]")]
    assert result.places == ["owner/name/helpful-base:train[95%:]:row 1"]
    assert result.examples[0].references == ("C",), "without outer white space, as an answer is decoded"


def test_a_hub_that_is_out_of_reach_is_one_error(monkeypatch):
    import datasets

    def load(*_, **__):
        raise ConnectionError("offline\nmore\nlines")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"can't load this data set from the hub \(ConnectionError: offline\)") as e:
        read_examples("owner/name:train", Columns())
    assert "HF_HUB_OFFLINE" in str(e.value)


def test_a_hub_data_set_is_known_by_the_files_it_came_from(monkeypatch):
    import datasets

    def served(commit):
        info = SimpleNamespace(download_checksums={f"hf://datasets/owner/name@{commit}/a.parquet": {}})
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: SimpleNamespace(info=info))
        return sources.source_fingerprint("owner/name:train", None)

    assert served("1") == served("1") != served("2")
