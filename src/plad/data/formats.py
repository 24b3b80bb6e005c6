"""The data files of a run: examples as JSONL, pairs as a parquet file with TRL's preference columns."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from plad.data.parquet import Column, iter_parquet, parquet_metadata, write_parquet
from plad.errors import DataError
from plad.records import Example, Message, Pair, Prompt
from plad.rundir.atomic import atomic_file
from plad.rundir.reading import reading

SIDES = ("chosen", "rejected")
_MEASURED_WITH = "plad.measured_with"


class _Row(TypedDict):
    id: str
    prompt: str | list[Message]
    references: list[str]


_EXAMPLE, _PAIR = TypeAdapter(_Row), TypeAdapter(Pair)


class TrlPair(TypedDict):
    """TRL's preference columns: texts, or the messages of a conversation and an assistant's message a side."""

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]


def write_examples_jsonl(path: Path, examples: Iterable[Example]) -> None:
    """Write examples as rows {"id", "prompt", "references"}, as `read_examples` takes them, whole or not at all."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        for e in examples:
            row = {"id": e.id, "prompt": _prompt_to_json(e.prompt), "references": list(e.references)}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_examples_jsonl(path: Path) -> list[Example]:
    """Read what `write_examples_jsonl` wrote; see `iter_examples_jsonl`."""
    return list(iter_examples_jsonl(path))


def iter_examples_jsonl(path: Path) -> Iterator[Example]:
    """Read what `write_examples_jsonl` wrote, row by row."""
    with reading(path, kind=DataError), path.open(encoding="utf-8") as f:
        for number, line in enumerate(f, start=1):
            with reading(path, kind=DataError, line=number):
                r = _EXAMPLE.validate_json(line)
                example = Example(r["id"], _prompt_from_json(r["prompt"]), tuple(r["references"]))
            yield example


def pair_to_trl(pair: Pair) -> TrlPair:
    """A TRL preference row; a conversational prompt gives assistant messages."""
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
    conversational = any(not isinstance(p.prompt, str) for p in pairs)
    if conversational and any(isinstance(p.prompt, str) for p in pairs):
        raise DataError("plain and conversational prompts are mixed", where="pairs", fix="use one kind of prompt")
    columns: dict[str, Column] = {
        **dict.fromkeys(TrlPair.__annotations__, "messages" if conversational else "text"),
        **dict.fromkeys(("id", "chosen_source", "rejected_source"), "text"),
        **{f"{side}_token_ids": "integers" for side in SIDES},
        **{f"{side}_{name}": "number" for name in sorted({n for p in pairs for n in p.values}) for side in SIDES},
    }
    rows = (
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
    )
    write_parquet(path, rows, columns, {_MEASURED_WITH: json.dumps(dict(measured_with or {}))})


def measured_with(path: Path) -> dict[str, str]:
    """The keys that `write_pairs_parquet` kept with a file's values."""
    with reading(path, kind=DataError):
        return json.loads(parquet_metadata(path).get(_MEASURED_WITH, "{}"))


def read_pairs_parquet(path: Path) -> list[Pair]:
    """Read what `write_pairs_parquet` wrote."""
    return list(iter_pairs_parquet(path))


def iter_pairs_parquet(path: Path) -> Iterator[Pair]:
    """Read what `write_pairs_parquet` wrote, row by row."""
    with reading(path, kind=DataError):
        for row in iter_parquet(path):
            yield _PAIR.validate_python(_pair(cast(dict[str, Any], row)))


def _pair(row: Mapping[str, Any]) -> Pair:
    chosen, rejected = (row[n] if isinstance(row[n], str) else row[n][0]["content"] for n in SIDES)
    others = ("chosen", "chosen_source", "chosen_token_ids")
    measured = [name.removeprefix("chosen_") for name in row if name.startswith("chosen") and name not in others]
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


def prompt_messages(prompt: Prompt) -> list[Message]:
    """A prompt as messages; a plain one is what a user says."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)


def _prompt_to_json(prompt: Prompt) -> str | list[Message]:
    return prompt if isinstance(prompt, str) else [{"role": m["role"], "content": m["content"]} for m in prompt]


def _prompt_from_json(value: str | list[Message]) -> Prompt:
    if isinstance(value, str):
        return value
    return tuple(Message(role=m["role"], content=m["content"]) for m in value)
