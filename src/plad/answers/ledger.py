"""The ledger of generations: one row an answer, keyed by everything that shapes it, committed as it finishes.

A row's *key* is made of what shaped the answer, token ids of the prompt included. An *ask* is made of what is
known without a model (system, weights, prompt text, settings) and points to the key it was last answered with.
Answers that a run finds whole are remembered by the *batch*, so that a million of them are passed over quickly.

SQLite in WAL mode: a killed process loses no committed row, a second process can read while a run writes, and several
runs can share one ledger.
"""

import contextlib
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from plad.answers.checksum import ANSWER, Checked, Damaged, check, checksum, damage_named, parse
from plad.answers.question import Question, canonical_json
from plad.answers.reading import OpenFile, for_reading, nothing
from plad.answers.reply import Reply, without_secrets
from plad.answers.schema import COLUMNS, READABLE, SCHEMA, STEPS, AnswerSums, Recorded, select
from plad.errors import RunDirError
from plad.records import Generation, Outcome
from plad.rundir.writing import may_write, room

_TIMEOUT = 30.0  # seconds to wait for another process
_REFUSED = ("unable to open", "readonly", "read-only")
_LOOKUP = 500  # keys a query, below SQLite's limit on parameters
_PUT = ", ".join(COLUMNS)
_KEPT = (*COLUMNS[1:], "checksum")
_KEEPS_ITS_ROW = (
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _KEPT)} "
    "WHERE generations.outcome = 'failed'"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer as the ledger shows it."""

    system: str
    generation: Generation
    seconds: float
    created: str
    model: str | None
    message: str | None


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")  # of damaged text the checksum tells


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def of_run(run: str | None) -> tuple[str, tuple[str, ...]]:
    """The condition that keeps the rows of one run, or all of them, with its values."""
    return ("WHERE TRUE", ()) if run is None else ("WHERE run = ?", (run,))


class Ledger:
    """An open ledger; use it as a context manager.

    Args:
        path: the database, made if it doesn't exist; ":memory:" for one that is never written.
        readonly: only read, also while another process writes.
        run: name of the run that writes; its rows carry it.

    Attributes:
        checksum: the column, as a query of this file names it.

    Raises:
        RunDirError: the file is missing (readonly), damaged, no ledger, or of another schema version.
    """

    def __init__(self, path: Path | Literal[":memory:"], *, readonly: bool = False, run: str | None = None) -> None:
        self.path, self.run = Path(path), run
        if self.path.is_dir():
            fix = "remove it, or move it away; then run the same command again"
            raise RunDirError("is a folder, where a file belongs", where=str(path), fix=fix)
        if readonly and not self.path.is_file():
            raise RunDirError("no generations yet", where=str(path), fix="plad run CONFIG makes them")
        self._tidy = nothing
        address = path if path == ":memory:" else f"{self.path.absolute().as_uri()}?mode=rwc"
        with self._errors():
            if readonly:
                address, self._tidy = for_reading(self.path)
            self._db = sqlite3.connect(address, uri=True, timeout=_TIMEOUT, isolation_level=None)
        try:
            with self._errors():
                self._open(readonly)
        except BaseException:
            self.close()
            raise
        self._file = None if path == ":memory:" or readonly else OpenFile(self.path)

    def _open(self, readonly: bool) -> None:
        # one statement, one snapshot: another process may be making the tables right now
        version, tables = self._db.execute(
            "SELECT user_version, (SELECT COUNT(*) FROM sqlite_master) FROM pragma_user_version"
        ).fetchone()
        older = 0 < version < SCHEMA
        self._db.text_factory = _decoded
        self.checksum = "checksum" if version == SCHEMA or not readonly else "NULL"
        if readonly and READABLE <= version <= SCHEMA:
            return
        if older and readonly:
            what = f"a ledger of an older version (schema {version}, this one reads {SCHEMA})"
            fix = "plad run CONFIG brings it up to date; every recorded answer is kept"
            raise RunDirError(what, where=str(self.path), fix=fix)
        if version != SCHEMA and not older and (version or tables or readonly):
            what = f"a ledger of another version (schema {version}, this one reads {SCHEMA})"
            fix = "use the version of plad that wrote it, or start a new run.dir"
            raise RunDirError(what, where=str(self.path), fix=fix)
        if readonly:
            return
        self._write_ahead()
        self._db.execute("PRAGMA synchronous=NORMAL")
        if version != SCHEMA:
            with self._transaction():  # another process may have made the tables since we looked
                for step in STEPS[self._db.execute("PRAGMA user_version").fetchone()[0] :]:
                    for statement in step:
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def _write_ahead(self) -> None:
        """Switch to WAL; SQLite doesn't wait for its timeout here while another process switches too."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as e:
                if "locked" not in str(e) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _errors(self) -> Generator[None]:
        """SQLite's errors as one RunDirError that names the way out."""
        try:
            yield
        except sqlite3.DatabaseError as e:
            message = str(e)
            if not may_write(self.path) and any(sign in message for sign in _REFUSED):
                raise RunDirError(
                    f"this user may not open the ledger ({message})",
                    where=str(self.path),
                    fix="make the file and its folder writable for this user, or name another run.dir",
                ) from e
            if any(sign in message for sign in ("disk I/O", "full", "unable to open")):
                raise RunDirError(
                    f"can't write the ledger ({message}); {room(self.path)}",
                    where=str(self.path),
                    fix="make room, or lift the limit on file size or the quota; then run the same command again: "
                    "every recorded answer is kept",
                ) from e
            if "locked" in message:
                raise RunDirError(
                    f"can't write the ledger ({message})", where=str(self.path), fix="end the process that holds it"
                ) from e
            raise RunDirError(
                f"a damaged ledger, or none at all ({message})",
                where=str(self.path),
                fix="put back a copy of the file, or move it away: its answers are then sampled again",
            ) from e

    def put(self, question: Question[object], system: str, reply: Reply) -> None:
        """Record how one request ended; it is committed when this returns.

        A key that is there already keeps its row, unless that one failed. An API key that a reply repeats is redacted.

        Raises:
            RunDirError: the disk is full or the file damaged; all earlier rows stay.
        """
        q, r = question, without_secrets(reply)
        row = (
            *(q.key, system, q.example.id, q.sample, r.outcome.value, r.text),
            json.dumps(r.token_ids, separators=(",", ":")),
            *(r.prompt_tokens, r.completion_tokens, r.seconds),
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            *(canonical_json(q.spec), q.spec.get("engine", "transformers"), self.run),
            *(r.model, r.cost, r.estimated, r.attempts, r.lost, r.message),
        )
        if self._file is not None and not self._file.is_there():
            raise RunDirError(
                "the ledger was deleted or replaced while answers were recorded",
                where=str(self.path),
                fix="put it back, or run the same command again: what is missing is asked for",
            )
        row = (*row, checksum(row[: len(ANSWER)]))
        with self._errors(), self._transaction():
            self._db.execute(f"INSERT INTO generations ({_PUT}, checksum) VALUES ({_marks(row)}) {_KEEPS_ITS_ROW}", row)
            self._db.execute("INSERT OR REPLACE INTO asked VALUES (?, ?)", (q.ask, q.key))

    def outcomes(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """How the requests recorded under `keys` ended; missing ones are left out."""
        found: dict[str, Outcome] = {}
        query = "SELECT key, system, example_id, outcome FROM generations WHERE key IN"
        for key, system, example_id, outcome in self._select(query, keys):
            with damage_named(self.path, key, system, example_id):
                found[key] = Outcome(outcome)
        return found

    def finished(self, batch: str, key: str) -> dict[str, int] | None:
        """The number of answers by outcome of a batch that `finish` was last told of with this key; else None."""
        with self._errors():
            query = "SELECT counts FROM batches WHERE batch = ? AND key = ?"
            row = self._db.execute(query, (batch, key)).fetchone()
        return json.loads(row[0]) if row else None

    def finish(self, batch: str, key: str, counts: Mapping[str, int]) -> None:
        """Remember that every ask of a batch points to an answer, each made with what `key` stands for."""
        with self._errors(), self._transaction():
            self._db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", (batch, key, json.dumps(dict(counts))))

    def begin(self, batch: str, keys: Mapping[str, str]) -> None:
        """Forget that a batch was finished, and let its asks point to keys that are recorded already: {ask: key}."""
        with self._errors(), self._transaction():
            self._db.execute("DELETE FROM batches WHERE batch = ?", (batch,))
            self._db.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?)", keys.items())

    def take_over(self, other: Path) -> int:
        """Copy the answers of another ledger that this one hasn't got, or that failed here; returns their number.

        They keep the run that got them, so that nothing counts as paid for twice.

        Raises:
            RunDirError: `other` can't be read.
        """
        with Ledger(other, readonly=True) as opened:  # says what is wrong with it
            theirs = opened.checksum
        address, tidy = for_reading(other)
        with self._errors():
            self._db.execute("ATTACH ? AS other", (address,))
            try:
                with self._transaction():
                    taken = self._db.execute(
                        f"INSERT INTO generations ({_PUT}, checksum) SELECT {_PUT}, {theirs} "
                        f"FROM other.generations WHERE outcome != 'failed' {_KEEPS_ITS_ROW}"
                    ).rowcount
                    self._db.execute(
                        "INSERT OR IGNORE INTO asked SELECT ask, key FROM other.asked JOIN generations USING (key)"
                    )
            finally:
                self._db.execute("DETACH other")
                tidy()
        return taken

    def get_many(self, keys: Sequence[str]) -> dict[str, Generation]:
        """The answers recorded under `keys`; missing ones are left out."""
        return self._lookup("key", "generations", keys)

    def asked(self, asks: Sequence[str]) -> dict[str, Generation]:
        """The answers that `asks` were last answered with, by ask; missing ones are left out."""
        return self._lookup("ask", "asked JOIN generations USING (key)", asks)

    def _lookup(self, name: str, tables: str, names: Sequence[str]) -> dict[str, Generation]:
        query = f"SELECT {name}, {self.checksum}, {', '.join(ANSWER)} FROM {tables} WHERE {name} IN"
        found: dict[str, Generation] = {}
        for named, stored, *answer in self._select(query, names):
            with damage_named(self.path, *answer[:3]):
                found[named] = parse(answer, stored)
        return found

    def _select(self, query: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(names), _LOOKUP):
            part = names[start : start + _LOOKUP]
            with self._errors():
                yield from self._db.execute(f"{query} ({_marks(part)})", part)

    def write(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Run statements as one transaction, committed when this returns."""
        with self._errors(), self._transaction():
            for statement, values in statements:
                self._db.execute(statement, values)

    def read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._errors():
            return self._db.execute(query, values).fetchall()

    def check(self) -> Checked:
        """Compare every row with its checksum."""
        with self._errors():
            return check(self._db.execute(f"SELECT rowid, {self.checksum}, {', '.join(ANSWER)} FROM generations"))

    def take_out(self, damaged: Sequence[Damaged]) -> None:
        """Delete rows, so that their answers are asked for again."""
        this = "generations WHERE rowid = ?"
        delete = (f"DELETE FROM asked WHERE key = (SELECT key FROM {this})", f"DELETE FROM {this}")
        self.write([("DELETE FROM batches", ()), *((d, (bad.row,)) for bad in damaged for d in delete)])

    def rows_of(self, query: str, values: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """The rows of a query, by the names of its columns."""
        with self._errors():
            cursor = self._db.execute(query, values)
            names = [name for name, *_ in cursor.description]
            for row in cursor:
                yield dict(zip(names, row, strict=True))

    def counts(self, run: str | None = None) -> dict[str, dict[str, int]]:
        """Number of recorded answers by system and outcome, of all settings ever used.

        Args:
            run: only those that this run got.
        """
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        where, values = of_run(run)
        query = f"SELECT system, outcome, COUNT(*) FROM generations {where} GROUP BY 1, 2 ORDER BY 1, 2"
        with self._errors():
            for system, outcome, n in self._db.execute(query, values):
                counts[system][outcome] = n
        return dict(counts)

    def summary(self, run: str | None = None) -> list[AnswerSums]:
        """Counts, tokens, cost and time by system, engine, served model and outcome.

        Args:
            run: only answers that this run got.
        """
        where, values = of_run(run)
        query = f"SELECT {select(AnswerSums)} FROM generations {where} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        return cast("list[AnswerSums]", list(self.rows_of(query, values)))

    def table(self, run: str | None = None) -> Iterator[Recorded]:
        """Every row with all its columns, in the order of recording."""
        where, values = of_run(run)
        for row in self.rows_of(f"SELECT {_PUT} FROM generations {where} ORDER BY rowid", values):
            with damage_named(self.path, row["key"], row["system"], row["example_id"]):
                parse([row[name] for name in ANSWER])
            yield cast(Recorded, row)

    def served(self, system: str, run: str) -> dict[str, int]:
        """Number of answers of a system that a run got, by the model that served them."""
        query = (
            "SELECT model, COUNT(*) FROM generations WHERE system = ? AND run = ? AND model IS NOT NULL "
            "GROUP BY model ORDER BY 2 DESC"
        )
        with self._errors():
            return dict(self._db.execute(query, (system, run)).fetchall())

    def messages(self, system: str, limit: int = 1) -> dict[str, int]:
        """What was said about answers of a system that are missing, with how often, the most frequent first."""
        query = (
            "SELECT message, COUNT(*) FROM generations WHERE system = ? AND outcome IN ('failed', 'bad_request') "
            "AND message IS NOT NULL GROUP BY message ORDER BY 2 DESC, MAX(rowid) DESC LIMIT ?"
        )
        with self._errors():
            return dict(self._db.execute(query, (system, limit)).fetchall())

    def example_ids(self, system: str | None = None) -> list[str]:
        """The examples that have an answer, of this system if one is given, the latest first."""
        where, values = ("WHERE system = ?", [system]) if system is not None else ("", [])
        query = f"SELECT example_id FROM generations {where} GROUP BY 1 ORDER BY MAX(rowid) DESC"
        with self._errors():
            return [row[0] for row in self._db.execute(query, values)]

    def rows(self, system: str | None = None, examples: Sequence[str] | None = None) -> Iterator[Entry]:
        """Recorded answers, the latest first; only those of a system, or to some examples, where these are given."""
        columns = f"seconds, created, model, message, {', '.join(ANSWER)}"
        query = (
            f"SELECT {columns} FROM generations WHERE system = COALESCE(?1, system) "
            "AND (?2 IS NULL OR example_id IN (SELECT value FROM json_each(?2))) ORDER BY rowid DESC"
        )
        with self._errors():
            for row in self._db.execute(query, (system, None if examples is None else json.dumps(examples))):
                answer = row[4:]
                with damage_named(self.path, *answer[:3]):
                    entry = Entry(answer[1], parse(answer), *row[:4])
                yield entry

    def close(self) -> None:
        """Close the file; what is recorded stays."""
        self._db.close()
        self._tidy()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
