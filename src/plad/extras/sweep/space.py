"""The space of a sweep: from choices and ranges to overrides of a config."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel

from plad.config.extras import SweepRange, SweepSection
from plad.config.file import load_config
from plad.config.root import Config
from plad.errors import ConfigError, PladError

_ABSENT = "check its name\nor give the section above it in the config: null has no settings"
Values = SweepRange | tuple[Any, ...]
Suggest = Callable[[str, "Knob"], Any]
"""From a setting's name and its knob to one of its values."""


@dataclass(frozen=True, slots=True)
class Knob:
    """The values of one setting.

    Attributes:
        kind: `choice`, or the type of a range's numbers.
        choices: for `choice`: numbers, texts and booleans as they are, everything else as JSON.
    """

    kind: Literal["choice", "int", "float"]
    choices: tuple[Any, ...] = ()
    range: SweepRange | None = None

    def override(self, key: str, value: Any) -> str:
        """`a.b=value` of a suggested value."""
        if self.kind == "choice" and isinstance(value, str) and value[:1] in ("{", "["):
            return f"{key}={value}"
        return f"{key}={json.dumps(value)}"


@dataclass(frozen=True, slots=True)
class Space:
    """A config file, overrides that hold for all trials, and the settings to try."""

    path: Path
    overrides: tuple[str, ...]
    section: SweepSection

    def load(self, more: Sequence[str] = ()) -> Config:
        """The config of a trial."""
        return load_config(self.path, [*self.overrides, *more])

    @property
    def keys(self) -> list[str]:
        """Settings, those on which others depend first."""
        return sorted(self.section.space, key=lambda key: (key.count("."), not key.endswith(".type")))

    def suggest(self, suggest: Suggest) -> list[str]:
        """The overrides of one trial; a setting that the values before it leave no place for has none.

        Raises:
            PladError: the values don't fit together.
        """
        chosen: list[str] = []
        config = self.load()
        for key in self.keys:
            if _field_type(config, key) is None:
                continue
            knob = _knob(self.section.space[key], config, key)
            chosen.append(knob.override(key, suggest(key, knob)))
            config = self.load(chosen)
        return chosen

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of choices, by setting."""

        def below(keys: Sequence[str], chosen: dict[str, Any], overrides: list[str]) -> Iterator[dict[str, Any]]:
            if not keys:
                yield chosen
                return
            key, rest = keys[0], keys[1:]
            config = self.load(overrides)
            if _field_type(config, key) is None:
                yield from below(rest, chosen, overrides)
                return
            knob = _knob(self.section.space[key], config, key)
            for value in knob.choices:
                yield from below(rest, {**chosen, key: value}, [*overrides, knob.override(key, value)])

        yield from below(self.keys, {}, [])

    def check(self) -> list[PladError]:
        """What is wrong with single values: each setting's, with the others as they are in the file."""
        problems: list[PladError] = []
        for key in self.keys:
            parents = self._parents(key)
            places = [p for p in parents if self._has(p, key)]
            if not places:
                problems.append(ConfigError("no such setting", where=f"sweep.space.{key}", fix=_ABSENT))
                continue
            values = self.section.space[key]
            step = getattr(values, "step", None)
            if step is not None and step % 1 and _knob(values, self.load(places[0]), key).kind == "int":
                problems.append(ConfigError("step must be a whole number", where=f"sweep.space.{key}"))
            for value in _ends(values):
                problems += self._problems(places, key, value)
        return problems

    def _parents(self, key: str) -> list[list[str]]:
        """Overrides by choices of settings above `key`, under which it may exist."""
        above = [p for p in self.section.space if key.startswith(f"{p}.") or p == f"{key.rpartition('.')[0]}.type"]
        found: list[list[str]] = [[]]
        for p in above:
            values = self.section.space[p]
            found += [[f"{p}={json.dumps(v)}"] for v in (values if isinstance(values, tuple) else ())]
        return found

    def _has(self, overrides: list[str], key: str) -> bool:
        try:
            return _field_type(self.load(overrides), key) is not None
        except PladError:
            return False

    def _problems(self, places: list[list[str]], key: str, value: Any) -> list[PladError]:
        """The problem of a value that is none under any of its parents."""
        problem: PladError | None = None
        for place in places:
            try:
                self.load([*place, f"{key}={json.dumps(value)}"])
                return []
            except PladError as e:
                problem = problem or e
        assert problem is not None
        what = f"{json.dumps(value)}: {problem.what.splitlines()[0]}"
        return [ConfigError(what, where=f"sweep.space.{key}", fix=problem.fix)]


def open_space(path: Path, overrides: Sequence[str]) -> Space:
    """The space of a config's sweep section.

    Raises:
        ConfigError: it has none.
    """
    section = load_config(path, overrides).sweep
    if section is None:
        raise ConfigError(
            "the config has no sweep section",
            where=str(path),
            fix="sweep: {space: {distill.learning_rate: {low: 1e-5, high: 1e-3, log: true}}}\n"
            "recipes/search.yaml is an example",
        )
    return Space(path, tuple(overrides), section)


def _ends(values: Values) -> tuple[Any, ...]:
    if isinstance(values, tuple):
        return values
    return tuple(int(v) if v.is_integer() else v for v in (values.low, values.high))


def _field_type(config: Config, key: str) -> Any:
    """The type of a setting; None where the config has no such place."""
    node: Any = config
    *parents, name = key.split(".")
    for part in parents:
        node = getattr(node, part, None) if isinstance(node, BaseModel) and part in type(node).model_fields else None
    if not isinstance(node, BaseModel) or name not in type(node).model_fields:
        return None
    return type(node).model_fields[name].annotation


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that a union or an annotation is made of."""
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


def _knob(values: Values, config: Config, key: str) -> Knob:
    if isinstance(values, SweepRange):
        types = set(_leaves(_field_type(config, key)))
        return Knob("float" if float in types or int not in types else "int", range=values)
    plain = tuple(v if isinstance(v, str | bool | int | float) or v is None else json.dumps(v) for v in values)
    return Knob("choice", choices=plain)
