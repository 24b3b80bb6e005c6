"""The ledger: what is recorded stays, under a key that holds everything that shaped it."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plad.answers.ledger import Ledger
from plad.answers.question import Question, canonical_json, request_key
from plad.answers.reply import Reply
from plad.answers.schema import FIRST, SCHEMA
from plad.errors import RunDirError
from plad.records import Example, Generation, Outcome

SPEC = {"weights": "w", "temperature": 0.7, "seed": 3, "eos": [2]}


def generation(example_id: str = "a", sample: int = 0, **fields: Any) -> Generation:
    values = {"text": "yes", "token_ids": (7, 8, 2), "outcome": Outcome.OK, "prompt_tokens": 5, **fields}
    return Generation(example_id, sample, **values)


def put(ledger: Ledger, key: str, system: str = "teacher", ask: str | None = None, **fields: Any) -> Generation:
    made = generation(**fields)
    reply = Reply(made.outcome, made.text, made.token_ids, made.prompt_tokens, len(made.token_ids), seconds=1.5)
    question = Question(key, ask or f"ask {key}", Example(made.example_id, ""), made.sample, 3, None, SPEC)
    ledger.put(question, system, reply)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "generations.sqlite"


@pytest.fixture
def ledger(path: Path) -> Any:
    path.parent.mkdir()
    with Ledger(path) as opened:
        yield opened


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"example_id": "naïve \x00 \"quoted\" 'id'", "sample": 3},
        {"text": "漢字 \x1b[31m\n</script>", "token_ids": (0, 299)},
        {"text": "", "token_ids": (), "outcome": Outcome.TOO_LONG},
        {"outcome": Outcome.TRUNCATED, "token_ids": tuple(range(200))},
    ],
)
def test_an_answer_comes_back_as_it_was(ledger: Ledger, fields: dict[str, Any]) -> None:
    made = put(ledger, "k", **fields)
    assert ledger.get_many(["k"]) == {"k": made}
    assert ledger.asked(["ask k"]) == {"ask k": made}
    assert [r.generation for r in ledger.rows()] == [made]


def test_the_first_answer_under_a_key_stays(ledger: Ledger) -> None:
    first = put(ledger, "k", text="first")
    put(ledger, "k", text="second")
    assert ledger.get_many(["k"]) == {"k": first}
    assert ledger.counts() == {"teacher": {"ok": 1}}


def test_an_ask_points_to_the_key_it_was_last_answered_with(ledger: Ledger) -> None:
    old, new = put(ledger, "old", ask="x", text="old"), put(ledger, "new", ask="x", text="new")
    assert ledger.asked(["x"]) == {"x": new}
    ledger.begin("batch", {"x": "old"})
    assert ledger.asked(["x"]) == {"x": old}


def test_lookups_are_batched(ledger: Ledger) -> None:
    made = {f"k{i}": put(ledger, f"k{i}", sample=i) for i in range(1200)}
    queries: list[str] = []
    ledger._db.set_trace_callback(queries.append)
    found = ledger.get_many([*made, "unknown"])
    assert found == made
    assert len(queries) == 3


def test_nothing_is_looked_up_where_nothing_is_asked(ledger: Ledger) -> None:
    assert ledger.get_many([]) == {}


def test_counts_are_by_system_and_outcome(ledger: Ledger) -> None:
    put(ledger, "1")
    put(ledger, "2", sample=1)
    put(ledger, "3", outcome=Outcome.EMPTY)
    put(ledger, "4", system="student")
    assert ledger.counts() == {"student": {"ok": 1}, "teacher": {"empty": 1, "ok": 2}}


def test_rows_are_the_latest_first_of_one_system(ledger: Ledger) -> None:
    for i in range(4):
        put(ledger, f"t{i}", example_id=f"e{i}")
        put(ledger, f"s{i}", system="student")
    rows = list(ledger.rows("teacher", ["e2", "e3", "elsewhere"]))
    assert [r.generation.example_id for r in rows] == ["e3", "e2"]
    assert list(ledger.rows("teacher", [])) == []
    assert ledger.example_ids("teacher") == ["e3", "e2", "e1", "e0"]
    assert {(r.system, r.seconds) for r in rows} == {("teacher", 1.5)}
    assert len(list(ledger.rows())) == 8


def test_a_second_process_reads_while_one_writes(ledger: Ledger, path: Path) -> None:
    put(ledger, "1")
    with Ledger(path, readonly=True) as reader:
        assert reader.counts() == {"teacher": {"ok": 1}}
        put(ledger, "2", sample=1)
        assert reader.counts() == {"teacher": {"ok": 2}}
        with pytest.raises(RunDirError, match="readonly"):
            put(reader, "3")


def test_the_row_holds_what_its_key_was_made_of(ledger: Ledger, path: Path) -> None:
    put(ledger, "k")
    with sqlite3.connect(path) as db:
        row = db.execute("SELECT spec, completion_tokens, created FROM generations").fetchone()
    assert row[:2] == (canonical_json(SPEC), 3)
    assert row[2].endswith("Z")


def test_a_ledger_in_memory_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger(":memory:") as ledger:
        put(ledger, "k")
        assert len(ledger.get_many(["k"])) == 1
    assert list(tmp_path.iterdir()) == []


def test_reopened_it_still_holds_everything(path: Path) -> None:
    path.parent.mkdir()
    with Ledger(path) as first:
        made = put(first, "k")
    with Ledger(path) as second:
        assert second.get_many(["k"]) == {"k": made}


def test_a_failed_answer_is_replaced_and_no_other_is(ledger: Ledger) -> None:
    put(ledger, "k", outcome=Outcome.FAILED, text="")
    assert ledger.outcomes(["k", "unknown"]) == {"k": Outcome.FAILED}
    second = put(ledger, "k", text="second")
    put(ledger, "k", text="third")
    put(ledger, "k", outcome=Outcome.FAILED, text="")
    assert ledger.get_many(["k"]) == {"k": second}


def test_what_a_provider_told_is_kept(path: Path) -> None:
    path.parent.mkdir()
    reply = Reply(Outcome.BAD_REQUEST, model="big-1", cost=0.25, estimated=True, attempts=3, lost=2, message="no")
    with Ledger(path, run="r1") as ledger:
        ledger.put(Question("k", "a", Example("e", ""), 0, 0, None, {"engine": "openai"}), "teacher", reply)
        assert ledger.messages("teacher") == {"no": 1}
        assert [(r.model, r.message) for r in ledger.rows()] == [("big-1", "no")]
    with sqlite3.connect(path) as db:
        columns = "engine, run, model, cost, estimated, attempts, lost, message"
        assert db.execute(f"SELECT {columns} FROM generations").fetchall() == [
            ("openai", "r1", "big-1", 0.25, 1, 3, 2, "no")
        ]


def test_answers_of_a_run_are_told_from_those_of_others(path: Path) -> None:
    path.parent.mkdir()
    for run in ("r1", "r2", "r2"):
        with Ledger(path, run=run) as ledger:
            put(ledger, f"{run} {len(list(ledger.rows()))}")
    with Ledger(path, readonly=True) as ledger:
        assert ledger.counts("r2") == {"teacher": {"ok": 2}}
        assert ledger.counts() == {"teacher": {"ok": 3}}


def test_a_finished_batch_is_remembered_for_its_key_until_it_begins_anew(ledger: Ledger) -> None:
    assert ledger.finished("b", "k") is None
    ledger.finish("b", "k", {"ok": 2})
    assert ledger.finished("b", "k") == {"ok": 2}
    assert ledger.finished("b", "other weights") is None
    ledger.begin("b", {})
    assert ledger.finished("b", "k") is None


def test_several_may_make_it_at_the_same_moment(tmp_path: Path) -> None:
    """Six threads open a file that isn't there yet, and each records an answer: all six are in it."""
    for turn in range(100):
        path, start = tmp_path / f"{turn}.sqlite", threading.Barrier(6)

        def record(name: str, path: Path = path, start: threading.Barrier = start) -> None:
            start.wait()
            with Ledger(path) as ledger:
                put(ledger, name, example_id=name)

        names = list("abcdef")
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(record, names))
        with Ledger(path, readonly=True) as ledger:
            assert ledger.get_many(names) == {name: generation(name) for name in names}


def test_answers_of_another_ledger_are_taken_over_once(ledger: Ledger, tmp_path: Path) -> None:
    own = put(ledger, "both", text="own")
    with Ledger(tmp_path / "other.sqlite", run="r1") as other:
        put(other, "both", text="other")
        new = put(other, "new", ask="who?")
        put(other, "lost", outcome=Outcome.FAILED, text="")
    assert ledger.take_over(tmp_path / "other.sqlite") == 1
    assert ledger.get_many(["both", "new", "lost"]) == {"both": own, "new": new}
    assert ledger.asked(["who?", "ask lost"]) == {"who?": new}
    assert ledger.counts("r1") == {"teacher": {"ok": 1}}
    assert ledger.take_over(tmp_path / "other.sqlite") == 0
    with pytest.raises(RunDirError, match="no generations yet"):
        ledger.take_over(tmp_path / "none.sqlite")


def test_an_answer_of_another_ledger_stands_in_for_one_that_failed_here(tmp_path: Path, ledger: Ledger) -> None:
    put(ledger, "a", outcome=Outcome.FAILED, text="", token_ids=())
    put(ledger, "b", text="mine")
    with Ledger(tmp_path / "other.sqlite") as other:
        theirs = put(other, "a")
        put(other, "b", text="theirs")
    assert ledger.take_over(tmp_path / "other.sqlite") == 1
    assert ledger.outcomes(["a"]) == {"a": Outcome.OK}
    assert ledger.asked(["ask a"]) == {"ask a": theirs}
    assert ledger.get_many(["b"])["b"].text == "mine"


# -- files that are no ledger ---------------------------------------------------------------------------


def test_a_ledger_of_the_first_version_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        for statement in FIRST:
            db.execute(statement)
        row = ("k", "teacher", "e", 0, "ok", "yes", "[7, 2]", 5, 2, 1.5, "2026-01-01T00:00:00Z", "{}")
        db.execute(f"INSERT INTO generations VALUES ({','.join('?' * len(row))})", row)
        db.execute("INSERT INTO asked VALUES ('a', 'k')")
        db.execute("PRAGMA user_version=1")
    with pytest.raises(RunDirError, match="older version") as caught:
        Ledger(path, readonly=True)
    assert "every recorded answer is kept" in str(caught.value)
    with Ledger(path) as ledger:
        assert ledger.asked(["a"]) == {"a": generation("e", token_ids=(7, 2))}
        put(ledger, "new")
        assert ledger.counts() == {"teacher": {"ok": 2}}
    with Ledger(path, readonly=True) as ledger:
        assert len(list(ledger.rows())) == 2


def test_answers_of_a_ledger_without_the_tables_of_batches_can_be_read_as_they_are(path: Path, ledger: Ledger) -> None:
    made = put(ledger, "k")
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE jobs")
        db.execute("DROP TABLE job_lines")
        db.execute("ALTER TABLE generations DROP COLUMN checksum")
        db.execute("PRAGMA user_version=2")
    with Ledger(path, readonly=True) as read:
        assert read.get_many(["k"]) == {"k": made}
    with Ledger(path) as opened:
        assert opened.read("SELECT COUNT(*) FROM jobs", ()) == [(0,)]


def test_another_schema_is_refused(path: Path, ledger: Ledger) -> None:
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    for readonly in (False, True):
        with pytest.raises(RunDirError, match=f"schema 99, this one reads {SCHEMA}") as caught:
            Ledger(path, readonly=readonly)
        assert "start a new run.dir" in str(caught.value)


def test_somebody_elses_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(RunDirError, match="another version"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_is_no_database_is_refused_and_not_touched(tmp_path: Path, readonly: bool) -> None:
    path = tmp_path / "generations.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunDirError, match="damaged ledger") as caught:
        Ledger(path, readonly=readonly)
    assert str(path) in str(caught.value)
    assert "->" in str(caught.value)
    assert path.read_bytes().startswith(b"not a database")


def read_all(path: Path) -> None:
    with Ledger(path) as ledger:
        list(ledger.rows())


def test_a_damaged_page_is_an_error_and_not_an_answer(path: Path, ledger: Ledger) -> None:
    for i in range(300):
        put(ledger, f"{i}", sample=i, text="x" * 200)
    ledger.close()
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xff" * (len(content) - 4096 * 2)
    path.write_bytes(content)
    with pytest.raises(RunDirError, match="damaged ledger"):
        read_all(path)


def test_a_reader_of_nothing_is_told_so(path: Path) -> None:
    with pytest.raises(RunDirError, match="no generations yet"):
        Ledger(path, readonly=True)
    assert not path.exists()


def test_a_missing_folder_is_named(path: Path) -> None:
    with pytest.raises(RunDirError, match="unable to open"):
        Ledger(path)


# -- keys -----------------------------------------------------------------------------------------------


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=5), st.data())
def test_a_key_changes_with_any_field_and_not_with_their_order(spec: dict[str, Any], data: st.DataObject) -> None:
    assert request_key(dict(reversed(spec.items()))) == request_key(spec)
    name = data.draw(st.sampled_from(sorted(spec)))
    other = data.draw(json_values.filter(lambda v: canonical_json(v) != canonical_json(spec[name])))
    assert request_key({**spec, name: other}) != request_key(spec)
    assert request_key({k: v for k, v in spec.items() if k != name}) != request_key(spec)
