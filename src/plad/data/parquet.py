"""Parquet files as rows of plain values: the one place that speaks to pyarrow, which is heavy and has no types."""

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from plad.rundir.atomic import atomic_file
from plad.rundir.reading import reading

Column = Literal["text", "integer", "number", "truth", "integers", "messages"]
_BATCH = 4096  # rows written or read at once


def write_parquet(
    path: Path,
    rows: Iterable[Mapping[str, object]],
    columns: Mapping[str, Column],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write rows, whole or not at all; a column that a row lacks is null."""
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    types: dict[Column, Any] = {
        "text": pa.string(),
        "integer": pa.int32(),
        "number": pa.float64(),
        "truth": pa.bool_(),
        "integers": pa.list_(pa.int32()),
        "messages": pa.list_(message),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()]).with_metadata(dict(metadata or {}))
    left = iter(rows)
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while batch := list(islice(left, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def iter_parquet(path: Path) -> Iterator[object]:
    """The rows of a file, one by one."""
    with _said_in_one_line():
        pq = import_module("pyarrow.parquet")
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()


def count_rows(path: Path) -> int:
    """How many rows a file has, without reading them."""
    with reading(path), _said_in_one_line():
        return import_module("pyarrow.parquet").read_metadata(path).num_rows


def parquet_metadata(path: Path) -> Mapping[str, str]:
    """What `write_parquet` kept beside the rows."""
    with _said_in_one_line():
        kept: dict[bytes, bytes] = import_module("pyarrow.parquet").read_schema(path).metadata or {}
        return {name.decode(): value.decode() for name, value in kept.items()}


@contextlib.contextmanager
def _said_in_one_line() -> Generator[None]:
    """What pyarrow raises as a ValueError of one line."""
    try:
        yield
    except (import_module("pyarrow").ArrowException, OSError) as e:
        raise ValueError(str(e).splitlines()[0]) from None
