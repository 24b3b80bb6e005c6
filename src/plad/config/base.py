"""What every section of a config shares."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

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
