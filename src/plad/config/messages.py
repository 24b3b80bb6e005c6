"""What is wrong with a config, in words: dotted path, value, and what is expected instead."""

import difflib
import json
import math
from collections.abc import Callable, Iterator
from typing import get_args, get_origin

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from plad.config.base import KEY_BELONGS, SecretFieldError, names_a_key
from plad.config.kinds import Kind
from plad.config.root import Config
from plad.errors import ConfigError

_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
}


def sections_of(annotation: object, value: JsonValue = None) -> list[type[BaseModel]]:
    """The section classes that an annotation allows; of an open end, the kind that `value` names, or all of them."""
    if isinstance(annotation, type) and issubclass(annotation, Kind) and "group" in annotation.__dict__:
        tag = value.get("type") if isinstance(value, dict) else None
        kind = annotation.named(tag) if isinstance(tag, str) else None
        return list(annotation.kinds().values()) if kind is None else [kind]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for a in get_args(annotation) for s in sections_of(a, value)]


def fill_types(model: type[BaseModel], raw: JsonValue) -> None:
    """Name the default's `type` in sections of several kinds that leave it out."""
    if not isinstance(raw, dict):
        return
    for name, info in model.model_fields.items():
        written = raw.get(name)
        for value in written if isinstance(written, list) else [written]:
            if not isinstance(value, dict):
                continue
            default = getattr(info.get_default(call_default_factory=True, validated_data={}), "type", None)
            if default is not None:
                value.setdefault("type", default)
            for section in _matching(sections_of(info.annotation, value), value):
                fill_types(section, value)


def _matching(sections: list[type[BaseModel]], value: dict[str, JsonValue]) -> list[type[BaseModel]]:
    def fits(section: type[BaseModel]) -> bool:
        info = section.model_fields.get("type")
        return info is None or value.get("type") in (info.default, None)

    return [s for s in sections if fits(s)]


def explain(
    error: ValidationError, raw: dict[str, JsonValue], where: Callable[[str], str], schema: type[BaseModel] = Config
) -> list[ConfigError]:
    """One error a setting, in the order of the file.

    Args:
        raw: the mapping that was checked.
        where: from a dotted path to its place.
        schema: what it was checked against.
    """
    messages: dict[str, list[tuple[str, str | None]]] = {}  # by path: (what is wrong, way out)
    for item in error.errors(include_url=False):
        path, value, of_a_union = _path(item["loc"], raw)
        cause = item.get("ctx", {}).get("error")
        path += cause.path if isinstance(cause, SecretFieldError) else ""
        if item["type"] == "literal_error" and of_a_union and isinstance(value, dict):
            continue  # the mapping is wrong, not the word that may stand in its place
        message = _message(item, path, value, raw, schema)
        if message not in messages.setdefault(path, []):
            messages[path].append(message)
    return [
        ConfigError(_either([what for what, _ in several]), where=where(path), fix=several[0][1])
        for path, several in messages.items()
    ]


def _either(whats: list[str]) -> str:
    """`expected a mapping; got 3` and `expected 'inherit'; got 3` -> `expected a mapping or 'inherit'; got 3`."""
    wanted = [w.removeprefix("expected ").partition("; got ") for w in whats if w.startswith("expected ")]
    if len(wanted) < 2:
        return whats[0]
    return f"expected {' or '.join(w[0] for w in wanted)}; got {wanted[0][2]}"


def _path(loc: tuple[int | str, ...], raw: JsonValue) -> tuple[str, JsonValue, bool]:
    """Dotted path of an error, the value there, and whether pydantic's own names of a union were left out."""
    node: JsonValue = raw
    parts: list[str] = []
    left_out = False
    for position, part in enumerate(loc):
        below = _below(node, part)
        if below:
            node = below[0]
        elif position == len(loc) - 1 and isinstance(node, dict) and "[" not in str(part):
            node = None  # a missing key
        else:
            left_out = True
            continue
        parts.append(str(part))
    return ".".join(parts), node, left_out


def _below(node: JsonValue, part: int | str) -> tuple[JsonValue] | None:
    """The value at a key of a mapping or at a place of a list, where there is one."""
    if isinstance(node, dict):
        return (node[str(part)],) if str(part) in node else None
    if isinstance(node, list) and str(part).isdigit() and int(part) < len(node):
        return (node[int(part)],)
    return None


def _message(
    item: ErrorDetails, path: str, value: JsonValue, raw: dict[str, JsonValue], schema: type[BaseModel]
) -> tuple[str, str | None]:
    kind, ctx = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        name = path.rpartition(".")[2]
        secret = names_a_key(name) or name.lower() == "headers"
        return "unknown key", KEY_BELONGS if secret else _did_you_mean(path, raw, schema)
    if kind == "missing":
        info = _field(path, raw, schema)
        return "is required", info.description if info else None
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = ctx.get("expected_tags") or ctx["discriminator"]
        names = str(tags).replace("'", "").replace(", ", " or ")
        written = value if isinstance(value, dict) else item["input"]  # a short form was written
        return f"type must be {names}; got {_show(written.get('type'))}", None
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        limit = f"{ctx[key]:,}" if isinstance(ctx[key], int) else f"{ctx[key]:g}"
        return f"must be {words} {limit}; got {_show(value)}", None
    if kind == "finite_number":
        return f"must be a finite number; got {_show(value)}", None
    if kind == "literal_error":
        return f"expected {ctx['expected']}; got {_show(value)}", None
    if kind == "value_error":
        return str(ctx["error"]), KEY_BELONGS if isinstance(ctx["error"], SecretFieldError) else None
    if kind in _KINDS:
        return f"expected {_KINDS[kind]}; got {_show(value)}", None
    return str(item["msg"]), None


def _show(value: JsonValue) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _field(path: str, raw: dict[str, JsonValue], schema: type[BaseModel]) -> FieldInfo | None:
    parent, _, name = path.rpartition(".")
    for section in sections_at(parent, raw, schema):
        if name in section.model_fields:
            return section.model_fields[name]
    return None


def sections_at(path: str, raw: dict[str, JsonValue], schema: type[BaseModel] = Config) -> list[type[BaseModel]]:
    """The section classes that may stand at a dotted path."""
    sections: list[type[BaseModel]] = [schema]
    node: JsonValue = raw
    for part in path.split(".") if path else []:
        within = isinstance(node, dict)
        node = (_below(node, part) or (None,))[0]
        if within:
            infos = [s.model_fields[part] for s in sections if part in s.model_fields]
            sections = [s for info in infos for s in sections_of(info.annotation, node)]
        if isinstance(node, dict):
            sections = _matching(sections, node)
    return sections


def _did_you_mean(path: str, raw: dict[str, JsonValue], schema: type[BaseModel]) -> str | None:
    parent, _, name = path.rpartition(".")
    names = [n for section in sections_at(parent, raw, schema) for n in section.model_fields]
    prefix = f"{parent}." if parent else ""
    elsewhere = [p for p in _all_paths(schema) if p.rpartition(".")[2] == name] if "type" not in names else []
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere[:3])}?"
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"known here: {', '.join(dict.fromkeys(names))}"


def _all_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield f"{prefix}{name}"
        for section in sections_of(info.annotation) if get_origin(info.annotation) is not tuple else []:
            yield from _all_paths(section, f"{prefix}{name}.")
