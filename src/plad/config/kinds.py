"""Sections of several kinds, told apart by `type`: objectives, judges, engines.

A kind is one class in one file of its room, or in an installed package that names it in its metadata:

    [project.entry-points."plad.objectives"]
    ipo = "my_package:IpoObjective"

A config names it by its `type`; nothing else in plad lists it.
"""

import inspect
import json
import logging
import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, ClassVar, Self, TypeVar

from pydantic import GetCoreSchemaHandler, JsonValue, ValidationInfo
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from plad.config.base import Section
from plad.errors import ConfigError

log = logging.getLogger("plad")
K = TypeVar("K")


class Kind(Section):
    """Base of a section that has kinds.

    A class that names its `group` is the open end, which a config's field is annotated with; its subclasses with a
    `type` are the kinds.

    Attributes:
        group: entry-point group in which other packages name their kinds.
        homes: packages of plad in which its own kinds live.
    """

    group: ClassVar[str]
    homes: ClassVar[tuple[str, ...]]

    @classmethod
    def tag(cls) -> str:
        """What `type` is in a config."""
        return cls.model_fields["type"].default

    @classmethod
    def kinds(cls) -> "dict[str, type[Self]]":
        """Every kind by its `type`; imports all of them."""
        cls._import_homes()
        for entry in entry_points(group=cls.group):
            try:
                cls._load(entry)
            except ConfigError as e:  # somebody else's package must not hide what is being looked for
                log.warning("%s", e)
        return dict(sorted(cls._known().items()))

    @classmethod
    def named(cls, tag: str) -> "type[Self] | None":
        """The kind of a `type`; other packages are imported only where it is none of plad's own."""
        for home in cls.homes:
            if tag.isidentifier() and find_spec(f"{home}.{tag}") is not None:
                import_module(f"{home}.{tag}")
        if tag not in cls._known():
            cls._import_homes()
        if tag not in cls._known():
            for entry in entry_points(group=cls.group, name=tag):
                cls._load(entry)
        return cls._known().get(tag) or cls.kinds().get(tag)

    def derived(self, base: type[K]) -> K:
        """Itself, as the class that a run works with.

        Raises:
            ConfigError: another package derived it from something else.
        """
        if not isinstance(self, base):
            raise ConfigError(
                f"type {self.tag()}: {type(self).__name__} is no {base.__name__}",
                where=type(self).__module__,
                fix=f"derive it from {base.__module__}.{base.__name__}",
            )
        return self

    @classmethod
    def _load(cls, entry: EntryPoint) -> None:
        try:
            kind = entry.load()
        except Exception as e:
            raise ConfigError(
                f"can't be loaded ({type(e).__name__}: {e})",
                where=f"{cls.group}: {entry.name} = {entry.value}",
                fix="repair or uninstall that package",
            ) from e
        if inspect.isabstract(kind):
            missing = ", ".join(sorted(kind.__abstractmethods__))
            raise ConfigError(f"lacks {missing}", where=f"{cls.group}: {entry.name} = {entry.value}", fix="define it")

    @classmethod
    def _import_homes(cls) -> None:
        for home in cls.homes:
            for module in pkgutil.iter_modules(import_module(home).__path__):
                import_module(f"{home}.{module.name}")

    @classmethod
    def _known(cls) -> "dict[str, type[Self]]":
        below = list(cls.__subclasses__())
        for kind in below:
            below += kind.__subclasses__()
        named = [kind for kind in below if "type" in kind.__annotations__ and "type" in kind.model_fields]
        named.sort(key=lambda kind: kind.__module__.startswith("plad."))  # of two with one name, plad's own
        return {kind.tag(): kind for kind in named if isinstance(kind.model_fields["type"].default, str)}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """An open end takes any of its kinds; a kind takes itself."""
        if "group" in cls.__dict__:
            return core_schema.with_info_plain_validator_function(cls._of_its_kind)
        return handler(source)

    @classmethod
    def _of_its_kind(cls, value: JsonValue | Self, info: ValidationInfo) -> "Self":
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise PydanticKnownError("model_type", {"class_name": cls.__name__})
        tag = value.get("type")
        kind = cls.named(tag) if isinstance(tag, str) else None
        if kind is None:
            tags = ", ".join(f"'{name}'" for name in cls.kinds())
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'type'", "tag": str(tag), "expected_tags": tags}
            )
        if info.mode == "json":  # as strict as the file around it: no number from a text, but lists become tuples
            return kind.model_validate_json(json.dumps(value), strict=True)
        return kind.model_validate(value)
