"""Pairs as LLaMA-Factory and axolotl read preferences, and the lines that register the file there."""

import json
from pathlib import Path
from typing import Any

from plad.data.formats import prompt_messages
from plad.records import Pair

_ROLES = {"user": "human", "assistant": "gpt"}  # LLaMA-Factory's names in its sharegpt format


def pair_to_llamafactory(pair: Pair) -> dict[str, Any]:
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


def pair_to_axolotl(pair: Pair) -> dict[str, Any]:
    """A row of axolotl's `chat_template.default` preference format."""
    return {
        "messages": prompt_messages(pair.prompt),
        "chosen": {"role": "assistant", "content": pair.chosen},
        "rejected": {"role": "assistant", "content": pair.rejected},
    }


def registration(to: str, out: Path) -> str:
    """What makes a file known to the trainer it was written for; empty where nothing is needed."""
    if to == "llamafactory":
        columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system"}
        entry = {"file_name": str(out.absolute()), "formatting": "sharegpt", "ranking": True, "columns": columns}
        body = json.dumps({out.stem: entry}, indent=2)
        return f"add to LLaMA-Factory's data/dataset_info.json, then `dataset: {out.stem}`, `stage: dpo`:\n{body}"
    if to == "axolotl":
        return (
            "add to axolotl's YAML:\nrl: dpo\ndatasets:\n"
            f"  - path: {out.absolute()}\n    ds_type: json\n    split: train\n    type: chat_template.default\n"
            "    field_messages: messages\n    field_chosen: chosen\n    field_rejected: rejected\n"
            "    message_property_mappings: {role: role, content: content}"
        )
    return ""
