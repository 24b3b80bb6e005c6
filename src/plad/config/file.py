"""From a YAML file and `a.b=value` overrides to a checked config; every problem is reported at once."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import yaml
from pydantic import BaseModel, JsonValue, ValidationError

from plad.config.messages import explain, fill_types
from plad.config.root import Config
from plad.errors import ConfigError, join

S = TypeVar("S", bound=BaseModel)
MAX_BYTES = 2**20
MAX_NODES, MAX_DEPTH = 10_000, 20  # stops a file whose aliases multiply
_PART = re.compile(r"[A-Za-z_]\w*|\d+")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does."""


_EXPONENT = re.compile(r"[-+]?\d[\d_]*(?:\.[\d_]*)?[eE][-+]?\d+|[-+]?\.\d+[eE][-+]?\d+")
_Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]  # untyped in the stubs
    "tag:plad:exponent", _EXPONENT, list("-+.0123456789")
)


def _exponent(loader: yaml.SafeLoader, node: yaml.Node) -> float | int:
    number = float(str(node.value).replace("_", ""))
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_Loader.add_constructor("tag:plad:exponent", _exponent)


@dataclass
class UncheckedConfig:
    """A config before it is checked.

    Attributes:
        raw: the mapping.
        lines: line of each dotted path.
        overridden: dotted paths set by an override.
    """

    name: str
    raw: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    lines: dict[str, int] = field(default_factory=dict[str, int])
    overridden: set[str] = field(default_factory=set[str])

    def where(self, path: str) -> str:
        """`file:line: a.b` of a setting, or of the nearest one above it."""
        at = path
        while at and at not in self.lines and at not in self.overridden:
            at = at.rpartition(".")[0]
        if at in self.overridden:
            return path
        line = f":{self.lines[at]}" if at in self.lines else ""
        return f"{self.name}{line}: {path}" if path else f"{self.name}{line}"


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check the config of a run; see `load_as`."""
    return load_as(Config, path, overrides)


def load_as(schema: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Read and check a config.

    Args:
        schema: what it may hold.
        path: a YAML file.
        overrides: `a.b=value`, the value in YAML; they come after the file.
    """
    draft = UncheckedConfig(str(path))
    problems = _read_yaml(read_text(path), draft)
    for item in overrides:
        try:
            _override(draft, item)
        except ConfigError as e:
            problems.append(e)
    return _check(schema, draft, problems)


def parse_as(schema: type[S], text: str, name: str) -> S:
    """Check YAML that stands in no config file; `name` names it in messages. Raises like `load_as`."""
    draft = UncheckedConfig(name)
    return _check(schema, draft, _read_yaml(text, draft))


def read_mapping(text: str, name: str) -> dict[str, JsonValue]:
    """The mapping of a YAML text, unchecked."""
    draft = UncheckedConfig(name)
    _read_yaml(text, draft)
    return draft.raw


def _check(schema: type[S], draft: UncheckedConfig, problems: list[ConfigError]) -> S:
    fill_types(schema, draft.raw)
    try:
        # Strict JSON mode: no number from a boolean or a text, but lists become tuples and texts paths.
        config = schema.model_validate_json(json.dumps(draft.raw, default=str), strict=True)
    except ValidationError as e:
        problems.extend(explain(e, draft.raw, draft.where, schema))
        raise join(problems) from None
    if problems:
        raise join(problems)
    return config


def read_text(path: Path) -> str:
    """The text of a config file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError("is too large for a config", where=str(path), fix="name the YAML file of the run")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), fix="plad init DIR writes a config to start from") from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"not UTF-8 (byte {e.start})", where=str(path), fix="save it as UTF-8 text") from None
    except OSError as e:
        raise ConfigError(f"can't be read ({e.strerror})", where=str(path), fix="name a YAML file") from None


def _read_yaml(text: str, draft: UncheckedConfig) -> list[ConfigError]:
    """Fill the draft; returns the keys that stand twice."""
    try:
        value, twice = _parse(text, draft)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f"{draft.name}:{mark.line + 1}:{mark.column + 1}" if mark else draft.name
        raise ConfigError(_one_line(e.problem or e.context or "not YAML"), where=place, fix=_yaml_fix(e)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigError(f"not YAML: {_one_line(str(e))}", where=draft.name) from None
    if value is None:
        raise ConfigError("is empty", where=draft.name, fix="plad init DIR writes a config to start from")
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "one value"
        raise ConfigError(f"expected a mapping of sections (run:, data:, ...), got {kind}", where=draft.name)
    draft.raw = value
    return twice


def _parse(text: str, draft: UncheckedConfig) -> tuple[JsonValue, list[ConfigError]]:
    """The value of a YAML text and the keys that stand twice in it."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        twice = list(_walk(node, draft))
        value = loader.construct_document(node)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped in the stubs
        return cast(JsonValue, value), twice  # a date in it is no JSON; it is checked as its text
    finally:
        loader.dispose()  # pyright: ignore[reportUnknownMemberType]  # untyped in the stubs


def _yaml_fix(error: yaml.MarkedYAMLError) -> str | None:
    if isinstance(error, yaml.constructor.ConstructorError) and "tag" in (error.problem or ""):
        return "remove the tag: a config holds plain values and never runs code"
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _walk(node: yaml.Node, draft: UncheckedConfig) -> Iterator[ConfigError]:
    """Note the line of every key and read it as text; yields the keys that stand twice."""
    stack = [(node, "", 0)]
    seen = 0
    while stack:
        current, path, depth = stack.pop()
        seen += 1
        if seen > MAX_NODES or depth > MAX_DEPTH:
            raise ConfigError("too large or nested too deeply", where=draft.name, fix="write it without aliases")
        if isinstance(current, yaml.SequenceNode):
            stack += [(item, f"{path}.{i}", depth + 1) for i, item in enumerate(current.value)]
        if not isinstance(current, yaml.MappingNode):
            continue
        first: dict[str, int] = {}
        for key, value in current.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"  # `on:` is a name here, not true
            name = f"{path}.{key.value}" if path else str(key.value)
            line = key.start_mark.line + 1
            if name in first:
                yield ConfigError(
                    f"stands twice, first in line {first[name]}",
                    where=f"{draft.name}:{line}: {name}",
                    fix="remove one of them",
                )
            first.setdefault(name, line)
            draft.lines[name] = line
            stack.append((value, name, depth + 1))


def _override(draft: UncheckedConfig, item: str) -> None:
    key, equals, text = item.partition("=")
    parts = key.split(".")
    if not equals or not all(_PART.fullmatch(p) for p in parts):
        raise ConfigError("an override looks like a.b=value", where=item, fix="for example distill.learning_rate=1e-4")
    if not text.strip():
        raise ConfigError("no value", where=item, fix=f"{key}=null unsets it")
    try:
        value, twice = _parse(text, UncheckedConfig(key))
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigError(f"the value is not YAML: {_one_line(str(e))}", where=item) from None
    if twice:
        raise twice[0]
    node: dict[str, JsonValue] | list[JsonValue] = draft.raw
    for depth, part in enumerate(parts[:-1]):
        node = _step(node, part, ".".join(parts[: depth + 1]))
    if isinstance(node, list):
        node[_index(node, parts[-1], key)] = value
    else:
        node[parts[-1]] = value
    prefixes = {".".join(parts[: n + 1]) for n in range(len(parts))}
    draft.overridden |= {key, *prefixes - set(draft.lines)}


def _step(node: dict[str, JsonValue] | list[JsonValue], part: str, path: str) -> dict[str, JsonValue] | list[JsonValue]:
    if isinstance(node, list):
        below = node[_index(node, part, path)]
    elif (below := node.get(part)) is None:
        below = node[part] = {}
    if not isinstance(below, dict | list):
        raise ConfigError(f"is {json.dumps(below, default=str)}, which has nothing below it", where=path)
    return below


def _index(node: list[JsonValue], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"is not one of its {len(node)} items", where=path, fix="number them from 0")
    return int(part)
