"""The data files of a run: examples as JSONL, pairs as a parquet file with TRL's preference columns."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plad.errors import DataError
from plad.records import Example, Message, Pair, Prompt
from plad.rundir.directory import atomic_file

SIDES = ("chosen", "rejected")
_MEASURED_WITH = "plad.measured_with"


def example_to_json(example: Example) -> dict[str, Any]:
    """A row {"id", "prompt", "references"}, as `read_examples` takes it."""
    return {"id": example.id, "prompt": _prompt_to_json(example.prompt), "references": list(example.references)}


def write_examples_jsonl(path: Path, examples: Iterable[Example]) -> None:
    """Write examples, whole or not at all."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        for example in examples:
            f.write(json.dumps(example_to_json(example), ensure_ascii=False) + "\n")


def read_examples_jsonl(path: Path) -> list[Example]:
    """Read what `write_examples_jsonl` wrote; see `iter_examples_jsonl`."""
    return list(iter_examples_jsonl(path))


def iter_examples_jsonl(path: Path) -> Iterator[Example]:
    """Read what `write_examples_jsonl` wrote, row by row.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError("is missing", where=str(path), fix="plad run CONFIG --clean data writes it again")
    try:
        with path.open(encoding="utf-8") as f:
            for r in map(json.loads, f):
                yield Example(r["id"], _prompt_from_json(r["prompt"]), tuple(r["references"]))
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"is damaged ({e})", where=str(path), fix="plad run CONFIG --clean data writes it again"
        ) from None


def pair_to_trl(pair: Pair) -> dict[str, Any]:
    """A TRL preference row {"prompt", "chosen", "rejected"}; a conversational prompt gives assistant messages."""
    if isinstance(pair.prompt, str):
        return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return {
        "prompt": _prompt_to_json(pair.prompt),
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def write_pairs_parquet(path: Path, pairs: Sequence[Pair], measured_with: Mapping[str, str] | None = None) -> None:
    """Write pairs, whole or not at all: TRL's columns, then id, sources, sampled tokens, and values.

    Args:
        measured_with: for the name of a value a key of all it depends on, kept in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    conversational = any(not isinstance(p.prompt, str) for p in pairs)
    if conversational and any(isinstance(p.prompt, str) for p in pairs):
        raise DataError("plain and conversational prompts are mixed", where="pairs", fix="use one kind of prompt")
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    text = pa.list_(message) if conversational else pa.string()
    measured = sorted({name for p in pairs for name in p.values})
    schema = pa.schema(
        [("prompt", text), ("chosen", text), ("rejected", text)]
        + [(name, pa.string()) for name in ("id", "chosen_source", "rejected_source")]
        + [(f"{side}_token_ids", pa.list_(pa.int32())) for side in SIDES]
        + [(f"{side}_{name}", pa.float64()) for name in measured for side in SIDES]
    )
    rows = [
        {
            **pair_to_trl(p),
            "id": p.id,
            "chosen_source": p.chosen_source,
            "rejected_source": p.rejected_source,
            "chosen_token_ids": list(p.chosen_token_ids),
            "rejected_token_ids": list(p.rejected_token_ids),
            **{f"{side}_{n}": v for n, both in p.values.items() for side, v in zip(SIDES, both, strict=True)},
        }
        for p in pairs
    ]
    with atomic_file(path) as temporary:
        metadata = {_MEASURED_WITH: json.dumps(dict(measured_with or {}))}
        pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata)), temporary)


def measured_with(path: Path) -> dict[str, str]:
    """The keys that `write_pairs_parquet` kept with a file's values."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_MEASURED_WITH.encode(), b"{}"))


def read_pairs_parquet(path: Path, limit: int | None = None) -> list[Pair]:
    """Read what `write_pairs_parquet` wrote; the first `limit` rows if given.

    Raises:
        DataError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError("is missing", where=str(path), fix="plad run CONFIG --clean pair writes it again")
    try:
        table = pq.read_table(path)
        numbers = [f.name for f in table.schema if pa.types.is_float64(f.type)]
        measured = [name.removeprefix("chosen_") for name in numbers if name.startswith("chosen_")]
        return [_pair(row, measured) for row in table.slice(0, limit).to_pylist()]
    except (pa.ArrowException, OSError, KeyError) as e:
        first = str(e).splitlines()[0]
        raise DataError(
            f"is damaged ({first})", where=str(path), fix="plad run CONFIG --clean pair writes it again"
        ) from None


def _pair(row: dict[str, Any], measured: Sequence[str]) -> Pair:
    chosen, rejected = (row[n] if isinstance(row[n], str) else row[n][0]["content"] for n in SIDES)
    values = {name: (row[f"chosen_{name}"], row[f"rejected_{name}"]) for name in measured}
    return Pair(
        id=row["id"],
        prompt=_prompt_from_json(row["prompt"]),
        chosen=chosen,
        rejected=rejected,
        chosen_source=row["chosen_source"],
        rejected_source=row["rejected_source"],
        rejected_token_ids=tuple(row["rejected_token_ids"]),
        chosen_token_ids=tuple(row["chosen_token_ids"]),
        values={name: both for name, both in values.items() if None not in both},
    )


def prompt_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as messages; a plain one is what a user says."""
    found = _prompt_to_json(prompt)
    return [{"role": "user", "content": found}] if isinstance(found, str) else found


def _prompt_to_json(prompt: Prompt) -> str | list[dict[str, str]]:
    return prompt if isinstance(prompt, str) else [{"role": m["role"], "content": m["content"]} for m in prompt]


def _prompt_from_json(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    return tuple(Message(role=m["role"], content=m["content"]) for m in value)
