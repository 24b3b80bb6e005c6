"""The space of a sweep: from choices and ranges to overrides of a config."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel

from plad.config.extras import SweepRange, SweepSection
from plad.config.file import load_config
from plad.config.root import Config
from plad.errors import ConfigError, PladError

_ABSENT = "check its name\nor give the section above it in the config: null has no settings"
Value = str | int | float | bool | None
"""A value that is tried; whatever is no number or text as JSON."""


@dataclass(frozen=True, slots=True)
class Knob:
    """The values of one setting.

    Attributes:
        kind: `choice`, or the type of a range's numbers.
    """

    kind: Literal["choice", "int", "float"]
    choices: tuple[Value, ...] = ()
    range: SweepRange | None = None

    def override(self, key: str, value: Value) -> str:
        """`a.b=value` of a suggested value."""
        as_it_is = self.kind == "choice" and isinstance(value, str) and value[:1] in ("{", "[")
        return f"{key}={value}" if as_it_is else f"{key}={json.dumps(value)}"


Suggest = Callable[[str, Knob], Value]
"""From a setting's name and its knob to one of its values."""


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
        _, overrides = next(self._combinations(self.keys, lambda key, knob: [suggest(key, knob)]))
        self.load(overrides)
        return overrides

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination of choices, by setting."""
        return (values for values, _ in self._combinations(self.keys, lambda _, knob: knob.choices))

    def _combinations(
        self, keys: Sequence[str], values: Callable[[str, Knob], Iterable[Value]], chosen: Sequence[str] = ()
    ) -> Iterator[tuple[dict[str, Value], list[str]]]:
        """Values by setting, and as overrides, for all values of each setting that has a place below those before."""
        if not keys:
            yield {}, list(chosen)
            return
        key, *rest = keys
        knob = self._knob(key, self.load(chosen))
        if knob is None:
            yield from self._combinations(rest, values, chosen)
            return
        for value in values(key, knob):
            for others, overrides in self._combinations(rest, values, [*chosen, knob.override(key, value)]):
                yield {key: value, **others}, overrides

    def _knob(self, key: str, config: Config) -> Knob | None:
        """The values of a setting; None where the config has no such place."""
        annotation = _field_type(config, key)
        values = self.section.space[key]
        if annotation is None:
            return None
        if isinstance(values, SweepRange):
            types = set(_leaves(annotation))
            return Knob("float" if float in types or int not in types else "int", range=values)
        return Knob("choice", tuple(v if isinstance(v, Value) else json.dumps(v) for v in values))

    def check(self) -> list[PladError]:
        """What is wrong with single values: each setting's, with the others as they are in the file."""
        problems: list[PladError] = []
        for key in self.keys:
            places = [place for place in self._parents(key) if self._knob_at(place, key) is not None]
            if not places:
                problems.append(ConfigError("no such setting", where=f"sweep.space.{key}", fix=_ABSENT))
                continue
            values, knob = self.section.space[key], self._knob_at(places[0], key)
            if isinstance(values, SweepRange):
                if values.step is not None and values.step % 1 and knob is not None and knob.kind == "int":
                    problems.append(ConfigError("step must be a whole number", where=f"sweep.space.{key}"))
                values = tuple(int(v) if v.is_integer() else v for v in (values.low, values.high))
            for value in values:
                problems += self._problems(places, key, json.dumps(value))
        return problems

    def _parents(self, key: str) -> list[list[str]]:
        """Overrides by choices of settings above `key`, under which it may exist."""
        above = [p for p in self.section.space if key.startswith(f"{p}.") or p == f"{key.rpartition('.')[0]}.type"]
        choices = {p: values for p in above if isinstance(values := self.section.space[p], tuple)}
        return [[], *([f"{p}={json.dumps(v)}"] for p, values in choices.items() for v in values)]

    def _knob_at(self, overrides: list[str], key: str) -> Knob | None:
        try:
            return self._knob(key, self.load(overrides))
        except PladError:
            return None

    def _problems(self, places: list[list[str]], key: str, value: str) -> list[PladError]:
        """The problem of a value that is none under any of its parents."""
        problems: list[PladError] = []
        for place in places:
            try:
                self.load([*place, f"{key}={value}"])
                return []
            except PladError as e:
                problems.append(
                    ConfigError(f"{value}: {e.what.splitlines()[0]}", where=f"sweep.space.{key}", fix=e.fix)
                )
        return problems[:1]


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


def _field_type(config: Config, key: str) -> object | None:
    """The type of a setting; None where the config has no such place."""
    node: object = config
    *parents, name = key.split(".")
    for part in parents:
        node = getattr(node, part, None) if isinstance(node, BaseModel) and part in type(node).model_fields else None
    if not isinstance(node, BaseModel) or name not in type(node).model_fields:
        return None
    return type(node).model_fields[name].annotation


def _leaves(annotation: object) -> Iterator[object]:
    """The types that a union or an annotation is made of."""
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)
