"""The pairs as TRL, LLaMA-Factory and axolotl read preferences, and the lines that register the file there."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from plad.data.formats import pair_to_trl, prompt_messages, read_pairs_parquet
from plad.errors import RunDirError
from plad.extras.export.handover import Handover
from plad.records import Pair
from plad.rundir.atomic import atomic_file

_ROLES = {"user": "human", "assistant": "gpt"}  # LLaMA-Factory's names in its sharegpt format


def pair_to_llamafactory(pair: Pair) -> dict[str, object]:
    """A row of LLaMA-Factory's sharegpt ranking format; a leading system message stands in a column of its own."""
    messages = prompt_messages(pair.prompt)
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if system else messages
    return {
        "conversations": [{"from": _ROLES.get(m["role"], m["role"]), "value": m["content"]} for m in turns],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "system": system,
    }


def pair_to_axolotl(pair: Pair) -> dict[str, object]:
    """A row of axolotl's `chat_template.default` preference format."""
    return {
        "messages": prompt_messages(pair.prompt),
        "chosen": {"role": "assistant", "content": pair.chosen},
        "rejected": {"role": "assistant", "content": pair.rejected},
    }


def export_trl(handover: Handover) -> str:
    """One JSON row a pair."""
    return f"wrote {_write(handover, 'pairs.jsonl', pair_to_trl)}"


def export_llamafactory(handover: Handover) -> str:
    """One JSON list, and its entry in dataset_info.json."""
    out = _write(handover, "llamafactory.json", pair_to_llamafactory, as_list=True)
    return f"wrote {out}\n{llamafactory_entry(out)}"


def export_axolotl(handover: Handover) -> str:
    """One JSON row a pair, and its entry in axolotl's YAML."""
    out = _write(handover, "axolotl.jsonl", pair_to_axolotl)
    return f"wrote {out}\n{axolotl_entry(out)}"


def _write(
    handover: Handover, default: str, shape: Callable[[Pair], Mapping[str, object]], *, as_list: bool = False
) -> Path:
    """Write the pairs in a shape.

    Raises:
        RunDirError: there are none yet.
    """
    out, pairs = handover.place(default), handover.run / "pairs.parquet"
    if not pairs.exists():
        raise RunDirError("no pairs yet", where=str(handover.run), fix="plad pair CONFIG makes them")
    rows = (json.dumps(shape(pair), ensure_ascii=False) for pair in read_pairs_parquet(pairs))
    with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        f.write("[\n" + ",\n".join(rows) + "\n]\n" if as_list else "".join(f"{r}\n" for r in rows))
    return out


def llamafactory_entry(out: Path) -> str:
    """What makes a file known to LLaMA-Factory."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system"}
    entry = {"file_name": str(out.absolute()), "formatting": "sharegpt", "ranking": True, "columns": columns}
    body = json.dumps({out.stem: entry}, indent=2)
    return f"add to LLaMA-Factory's data/dataset_info.json, then `dataset: {out.stem}`, `stage: dpo`:\n{body}"


def axolotl_entry(out: Path) -> str:
    """What makes a file known to axolotl."""
    return (
        "add to axolotl's YAML:\nrl: dpo\ndatasets:\n"
        f"  - path: {out.absolute()}\n    ds_type: json\n    split: train\n    type: chat_template.default\n"
        "    field_messages: messages\n    field_chosen: chosen\n    field_rejected: rejected\n"
        "    message_property_mappings: {role: role, content: content}"
    )
