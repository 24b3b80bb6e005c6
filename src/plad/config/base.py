"""What every section of a config shares."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

_NAME_BYTES, _PATH_BYTES = 255, 3800  # most that file systems take: of one name, and of a path with room below it


def _writable(path: Path) -> Path:
    """A path that a file system can have."""
    if "\0" in str(path):
        raise ValueError("holds a NUL character, which no file name can")
    try:
        sizes = [len(os.fsencode(part)) for part in path.parts]
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which no file name can") from None
    if max(sizes, default=0) > _NAME_BYTES:
        raise ValueError(f"holds a name of {max(sizes):,} bytes; file systems take {_NAME_BYTES} at most")
    if sum(sizes) + len(sizes) > _PATH_BYTES:
        raise ValueError(f"is a path of {sum(sizes) + len(sizes):,} bytes; at most {_PATH_BYTES:,} leave room below it")
    return path


WritablePath = Annotated[Path, AfterValidator(_writable)]
"""A file or folder that will be made."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""numpy takes no larger ones."""
PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Role = Literal["teacher", "student"]
ROLES: tuple[Role, ...] = ("teacher", "student")

PACES = "paces"
"""Marks a field that bounds memory or paces work and never changes a result: `Annotated[int, PACES]`."""


class Section(BaseModel):
    """Base of all sections: frozen, closed, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    def shaping(self, *, apart: Collection[str] = ()) -> dict[str, JsonValue]:
        """The settings that shape results, as JSON; those marked `PACES` are left out, in sections below too.

        Args:
            apart: fields that the caller records by themselves, such as a model by its weights.
        """
        dumped = self.model_dump(mode="json")
        left_out = {*apart, *(name for name, info in type(self).model_fields.items() if PACES in info.metadata)}
        return {name: _shaping(getattr(self, name), dumped[name]) for name in dumped if name not in left_out}


def _shaping(value: object, dumped: Any) -> JsonValue:
    if isinstance(value, Section):
        return value.shaping()
    if isinstance(value, tuple):
        return [_shaping(*both) for both in zip(value, dumped, strict=True)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return dumped
