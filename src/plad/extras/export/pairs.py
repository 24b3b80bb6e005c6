"""The pairs as TRL, LLaMA-Factory and axolotl read preferences, and the lines that register the file there.

A prompt leaves as the student reads it: as text where its format is plain or a template, as messages where it is chat.
LLaMA-Factory has chat templates of its own by name, so its file holds text in every case.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plad.data.formats import SIDES, TrlPair, prompt_messages, read_pairs_parquet
from plad.errors import ConfigError, RunDirError
from plad.extras.export.handover import Handover
from plad.records import Pair
from plad.rundir.atomic import atomic_file

if TYPE_CHECKING:
    from plad.policy.prompt import PromptFormat

log = logging.getLogger("plad")


def trl_row(pair: Pair, prompt: "PromptFormat") -> TrlPair:
    """A TRL preference row: texts, or messages where the student's format is chat."""
    if prompt.kind == "chat":
        messages: Any = prompt.messages(pair.prompt)
        chosen, rejected = ([{"role": "assistant", "content": getattr(pair, side)}] for side in SIDES)
        return {"prompt": messages, "chosen": chosen, "rejected": rejected}  # type: ignore[typeddict-item]
    chosen, rejected = (prompt.separator + getattr(pair, side) for side in SIDES)
    return {"prompt": prompt.text(pair.prompt), "chosen": chosen, "rejected": rejected}


def axolotl_row(pair: Pair, prompt: "PromptFormat") -> dict[str, object]:
    """A row of axolotl's `chat_template.default` preference format, or of texts."""
    row = trl_row(pair, prompt)
    if prompt.kind != "chat":
        return {**row}
    return {"messages": row["prompt"], **{side: row[side][0] for side in SIDES}}


def llamafactory_row(pair: Pair, prompt: "PromptFormat") -> dict[str, object]:
    """A row of LLaMA-Factory's sharegpt ranking format for its template `empty`, which adds nothing to a text."""
    template = prompt.chat_template()
    messages: Any = prompt.messages(pair.prompt) if prompt.kind == "chat" else prompt_messages(pair.prompt)
    tokenizer: Any = prompt.tokenizer
    text = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
    end = prompt.text_of([prompt.end_id])
    answers = {side: {"from": "gpt", "value": prompt.separator + getattr(pair, side) + end} for side in SIDES}
    return {"conversations": [{"from": "human", "value": text}], **answers}


def export_trl(handover: Handover) -> str:
    """One JSON row a pair."""
    return f"wrote {_write(handover, 'pairs.jsonl', trl_row)[0]}"


def export_llamafactory(handover: Handover) -> str:
    """One JSON list, and its entry in dataset_info.json."""
    out, _ = _write(handover, "llamafactory.json", llamafactory_row, as_list=True)
    return f"wrote {out}\n{llamafactory_entry(out)}"


def export_axolotl(handover: Handover) -> str:
    """One JSON row a pair, and its entry in axolotl's YAML."""
    out, prompt = _write(handover, "axolotl.jsonl", axolotl_row)
    return f"wrote {out}\n{axolotl_entry(out, chat=prompt.kind == 'chat')}"


def _write(
    handover: Handover,
    default: str,
    shape: Callable[[Pair, "PromptFormat"], Mapping[str, object]],
    *,
    as_list: bool = False,
) -> tuple[Path, "PromptFormat"]:
    """Write the pairs in a shape; returns where, and the student's prompt format.

    Raises:
        ConfigError: a type of weights is asked for.
        RunDirError: there are none yet.
    """
    if handover.dtype is not None:
        raise ConfigError("pairs hold no weights", where="--dtype", fix="remove --dtype")
    out, file = handover.place(default), handover.run / "pairs.parquet"
    if not file.exists():
        raise RunDirError("no pairs yet", where=str(handover.run), fix="plad pair CONFIG makes them")
    prompt, pairs = handover.prompt_format(), read_pairs_parquet(file)
    rows = (json.dumps(shape(pair, prompt), ensure_ascii=False) for pair in pairs)
    with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        f.write("[\n" + ",\n".join(rows) + "\n]\n" if as_list else "".join(f"{r}\n" for r in rows))
    different = 0 if as_list else sum(not same_tokens(pair, prompt) for pair in pairs)
    if different:
        log.warning(
            "%d of %d pairs become other tokens there than here: prompt and answer are cut as one text, or hold the "
            "name of a control token",
            *(different, len(pairs)),
        )
    return out, prompt


def same_tokens(pair: Pair, prompt: "PromptFormat") -> bool:
    """Whether a trainer that cuts prompt and answer as one text, as TRL does, sees the tokens that plad trains on.

    In chat format a template may write more after the end of an answer.
    """
    row = trl_row(pair, prompt)
    tokenizer: Any = prompt.tokenizer
    for side in SIDES:
        ours = prompt.encode_prompt(pair.prompt) + prompt.encode_completion(getattr(pair, side))
        if prompt.kind == "chat":
            messages: Any = [*row["prompt"], *row[side]]
            theirs = tokenizer.apply_chat_template(messages, chat_template=prompt.template, return_dict=False)
        else:
            theirs = tokenizer(f"{row['prompt']}{row[side]}{prompt.text_of([prompt.end_id])}").input_ids
        if theirs[: len(ours)] != ours:
            return False
    return True


def llamafactory_entry(out: Path) -> str:
    """What makes a file known to LLaMA-Factory."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    entry = {"file_name": str(out.absolute()), "formatting": "sharegpt", "ranking": True, "columns": columns}
    body = json.dumps({out.stem: entry}, indent=2)
    return (
        f"add to LLaMA-Factory's data/dataset_info.json, then `dataset: {out.stem}`, `stage: dpo`, "
        f"`template: empty` (prompts are rendered, answers end with their end token):\n{body}"
    )


def axolotl_entry(out: Path, *, chat: bool) -> str:
    """What makes a file known to axolotl."""
    kind = (
        "    type: chat_template.default\n    field_messages: messages\n    field_chosen: chosen\n"
        "    field_rejected: rejected\n    message_property_mappings: {role: role, content: content}"
        if chat
        else "    type:\n      field_prompt: prompt\n      field_chosen: chosen\n      field_rejected: rejected\n"
        '      prompt_format: "{prompt}"\n      chosen_format: "{chosen}"\n      rejected_format: "{rejected}"'
    )
    return (
        "add to axolotl's YAML:\nrl: dpo\ndatasets:\n"
        f"  - path: {out.absolute()}\n    ds_type: json\n    split: train\n{kind}"
    )
