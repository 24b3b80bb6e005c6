"""What every section of a config shares."""

import os
import re
from collections.abc import Collection, Iterator
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

KEY_BELONGS = "put the key into an environment variable, and that variable's NAME into api_key_env"
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET = {"authorization", "secret", "secrets", "password", "passwd", "credential", "credentials", "apikey", "bearer"}
_KEYS = {"api", "access", "secret", "private", "subscription", "auth"}  # before `key`
_TOKENS = {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "stop", "start", "end", "think", "image", "audio"}
_LOOKS_SO = re.compile(r"(?i:bearer\s+\S+)|(?i:sk-[\w-]{8,})|hf_\w{8,}")


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


class SecretFieldError(ValueError):
    """A field that holds a key.

    Attributes:
        path: of the field, below what was checked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__("holds a key, which would be written into the run")


def refuse_secrets(fields: JsonValue) -> None:
    """Refuse free fields of a config among which one is called, or looks, like a key.

    Raises:
        SecretFieldError: one does.
    """
    for path in _secrets(fields, ""):
        raise SecretFieldError(path)


def _secrets(value: JsonValue, path: str) -> Iterator[str]:
    if isinstance(value, str) and _LOOKS_SO.fullmatch(value.strip()):
        yield path
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _secrets(item, f"{path}.{i}")
    if isinstance(value, dict):
        schema = path.rpartition(".")[2] == "properties"  # of a JSON schema, where a name may be any word
        for name, below in value.items():
            at = f"{path}.{name}"
            if names_a_key(name) and below is not None and not (schema and isinstance(below, dict)):
                yield at
            yield from _secrets(below, at)


def names_a_key(name: str) -> bool:
    """Whether a field of this name holds a key: `api_key`, `X-Api-Key`, `authToken`, but not `max_tokens`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    before = {*words[-2:-1]}
    return bool(words) and (
        bool(_SECRET & {*words})
        or (words[-1] == "key" and bool(before & _KEYS))
        or (words[-1] == "token" and not before & _TOKENS)
        or "".join(words).endswith("apikey")
    )
