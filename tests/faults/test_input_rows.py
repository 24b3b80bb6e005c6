"""Rows that can't be read: all at once, with file:line, and what is accepted all the same."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plad.config.root import Columns
from plad.data import sources
from plad.data.read import read_examples
from plad.data.rows import BadRowsError
from plad.errors import DataError

GOOD = b'{"id": "good", "prompt": "P", "reference": "R"}'


def bad_row(tmp_path, line, name="a.jsonl", **options):
    """The report on `line` as line 2 of a file, without the file's name."""
    path = tmp_path / name
    path.write_bytes(GOOD + b"\n" + line + b"\n")
    with pytest.raises(BadRowsError) as e:
        read_examples(str(path), Columns(), need_references=True, **options)
    assert e.value.total == 1
    assert [
        x.prompt for x in read_examples(str(path), Columns(), skip_invalid=True, need_references=True).examples
    ] == ["P"]
    row = e.value.bad[0]
    return f"{row.place.removeprefix(str(path))}: {row.why}"


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (b'{"prompt": "x"', ":2:15: not JSON: expecting ',' delimiter"),
        (b"{'prompt': 'x'}", ":2:2: not JSON: expecting property name enclosed in double quotes"),
        (b'{"prompt": "a\0b"}', ":2:14: not JSON: invalid control character at; the file holds a NUL byte"),
        (b"[" * 100_000, ":2: not JSON: nested too deeply"),
        (b"1" * 5000, ":2: Exceeds the limit"),
        (b'["prompt"]', ':2: expected an object like {"prompt": ...}, got a list'),
        (b"3", ':2: expected an object like {"prompt": ...}, got a number'),
        (b'{"prompt": "x", "prompt": "y"}', ":2: column 'prompt' stands twice in the row"),
        (b'{"text": "x"}', ":2: no column 'prompt' (has 'text')"),
        (b"{}", ":2: no column 'prompt' (has none)"),
        (b'{"prompt": null}', ":2: prompt: null; expected text, or a list of"),
        (b'{"prompt": 3}', ":2: prompt: a number; expected text, or a list of"),
        (b'{"prompt": true}', ":2: prompt: a boolean; expected"),
        (b'{"prompt": {"a": 1}}', ":2: prompt: an object; expected"),
        (b'{"prompt": " \\n\\t"}', ":2: prompt: blank; expected text"),
        (b'{"prompt": []}', ":2: prompt: an empty list; expected"),
        (b'{"prompt": ["x"]}', ":2: prompt[0]: text; expected"),
        (b'{"prompt": [{"role": "user"}]}', ":2: no column 'content' (has 'role')"),
        (b'{"prompt": [{"role": "user", "content": null}]}', ":2: prompt[0].content: null; expected text"),
        (b'{"prompt": [{"role": "user", "content": ["x"]}]}', ":2: prompt[0].content: a list; expected text"),
        (b'{"prompt": [{"role": "assistant", "content": "x"}]}', ":2: prompt: ends with 'assistant'; expected"),
        (b'{"prompt": [{"role": "user", "content": "x"}]}', ":2: prompt: messages, but the first row has text"),
        (b'{"prompt": "x\\u0000y"}', ":2: prompt: holds a NUL character at position 1"),
        (b'{"prompt": "ab\\ud800"}', ":2: prompt: lone surrogate U+D800 at position 2"),
        (b'{"prompt": "x"}', ":2: no column references, reference, completion (has 'prompt'); a target is needed"),
        (b'{"prompt": "x", "reference": 3}', ":2: reference: a number; expected text, a list of texts"),
        (b'{"prompt": "x", "references": []}', ":2: references: an empty list; expected"),
        (b'{"prompt": "x", "references": ["a", null]}', ":2: references[1]: null; expected text"),
        (b'{"prompt": "x", "references": ["a", ["b"]]}', ":2: references[1]: a list; expected text"),
        (b'{"prompt": "x", "reference": " "}', ":2: reference: blank; expected text"),
        (b'{"prompt": "x", "completion": [{"role": "user", "content": "y"}]}', ":2: completion: a conversation;"),
        (b'{"id": true, "prompt": "x", "reference": "r"}', ":2: id: a boolean; expected text or a whole number"),
        (b'{"id": 1.5, "prompt": "x", "reference": "r"}', ":2: id: a number; expected text or a whole number"),
        (b'{"id": "", "prompt": "x", "reference": "r"}', ":2: id: blank; expected text"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_line_and_the_expected_shape(tmp_path, line, report):
    assert bad_row(tmp_path, line).startswith(report)


def test_not_utf8_is_named_with_the_byte_offset_in_the_file(tmp_path):
    offset = len(GOOD) + 1 + len(b'{"prompt": "caf')
    assert bad_row(tmp_path, b'{"prompt": "caf\xe9"}') == f":2: not UTF-8: byte 0xe9 at offset {offset} of the file"


def test_a_given_id_used_twice_names_both_lines(tmp_path):
    report = bad_row(tmp_path, GOOD.replace(b'"P"', b'"Q"'))
    assert report == f":2: id 'good' is used before, at {tmp_path / 'a.jsonl'}:1"


def test_utf16_is_reported_not_guessed(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n', encoding="utf-16")
    with pytest.raises(BadRowsError, match="not UTF-8: byte 0xff at offset 0"):
        read_examples(str(tmp_path / "a.jsonl"), Columns())


def test_a_line_over_the_limit_is_reported_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 1000)
    long = b'{"prompt": "' + b"x" * 3_000_000 + b'"}'
    assert bad_row(tmp_path, long) == f":2: line of {len(long) + 1:,} bytes; at most 1,000 are read"
    path = tmp_path / "b.jsonl"
    path.write_bytes(long + b"\n" + GOOD + b"\n" + b'{"prompt": "caf\xe9"}')
    with pytest.raises(BadRowsError) as e:
        read_examples(str(path), Columns())
    assert e.value.total == 2
    assert f"offset {len(long) + len(GOOD) + 17} of the file" in e.value.bad[1].why


def test_a_line_of_exactly_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", len(GOOD))
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    assert len(read_examples(str(tmp_path / "a.jsonl"), Columns()).examples) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD + b"\n",
        GOOD + b"\r\n",
        GOOD,
        b"\n  \n" + GOOD + b"\n\n",
    ],
    ids=["byte order mark", "CRLF", "no final newline", "blank lines"],
)
def test_harmless_files_are_read(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    (example,) = read_examples(str(tmp_path / "a.jsonl"), Columns()).examples
    assert (example.prompt, example.references) == ("P", ("R",))


def test_the_first_twenty_bad_rows_are_named_and_the_rest_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"prompt": {i}}}\n' for i in range(50)) + '{"prompt": "P"}\n')
    with pytest.raises(BadRowsError) as e:
        read_examples(str(path), Columns())
    text = str(e.value)
    assert "50 rows can't be used" in text
    assert f"{path}:20: " in text
    assert f"{path}:21: " not in text
    assert "... and 30 more" in text
    assert "--skip-invalid" in text


def test_skipping_drops_with_counts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"rubbish\n" + GOOD + b'\n{"prompt": null}\n')
    result = read_examples(str(path), Columns(), skip_invalid=True)
    assert (len(result.examples), result.skipped, result.places) == (1, 2, [f"{path}:2"])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="the file holds no row"):
        read_examples(str(tmp_path / "a.jsonl"), Columns())


def test_skipping_never_drops_all(tmp_path):
    (tmp_path / "a.jsonl").write_text("x\ny\n")
    with pytest.raises(BadRowsError, match="2 rows can't be used, and there is no other") as e:
        read_examples(str(tmp_path / "a.jsonl"), Columns(), skip_invalid=True)
    assert "a.jsonl:2:1: not JSON" in str(e.value)
    assert "--skip-invalid" not in str(e.value)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff\u2060 \u200d", "\u3164\u2800", "\u00ad\ufe0f"])
def test_text_of_which_nothing_can_be_seen_is_blank(tmp_path, text):
    for row in ({"prompt": text, "reference": "r"}, {"prompt": "x", "references": ["r", text]}):
        assert "blank (nothing but invisible characters); expected text" in bad_row(tmp_path, json.dumps(row).encode())
    visible = write_row(tmp_path, {"prompt": f"{text}x", "reference": f"a\u200db{text}"})
    assert visible.prompt == f"{text}x", "beside other characters they stay"


def write_row(tmp_path, row):
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    return read_examples(str(tmp_path / "one.jsonl"), Columns()).examples[0]


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_cut_off_gzip_file_is_never_taken_for_whole(tmp_path, keep):
    rows = b"".join(json.dumps({"prompt": f"P{i * i}"}).encode() + b"\n" for i in range(500))
    packed = gzip.compress(rows)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: int(len(packed) * keep)])
    with pytest.raises(DataError, match="damaged gzip file"):
        read_examples(str(tmp_path / "a.jsonl.gz"), Columns(), skip_invalid=True)


def test_a_file_that_is_no_gzip_or_parquet_is_one_error(tmp_path):
    for name, message in (("a.jsonl.gz", "damaged gzip file"), ("a.parquet", "not a readable parquet file")):
        (tmp_path / name).write_bytes(GOOD * 20)
        with pytest.raises(DataError, match=message):
            read_examples(str(tmp_path / name), Columns())


def test_a_bad_parquet_row_is_named(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"prompt": "P"}, {"prompt": None}]), tmp_path / "a.parquet")
    with pytest.raises(BadRowsError, match=r"a\.parquet:row 2: prompt: null"):
        read_examples(str(tmp_path / "a.parquet"), Columns())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("trian.jsonl", r"no such data file\n  -> did you mean .*train\.jsonl\?"),
        ("folder", "is a folder"),
        ("notes.txt", "unknown kind of file .txt"),
        ("nowhere/train.jsonl", "no such data file"),
    ],
)
def test_a_source_that_is_no_data_file_is_named(tmp_path, source, message):
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=message):
        read_examples(str(tmp_path / source), Columns())
