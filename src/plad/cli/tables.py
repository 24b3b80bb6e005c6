"""What tables of several commands write into their cells."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pydantic import JsonValue


class Interval(Protocol):
    """A figure with its 95 % interval; None where it can't be told."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def estimate_text(e: Interval, scale: float, sign: str = "") -> str:
    """`50.0 [40.0, 60.0]`; a dash for what has no value."""
    if e.value is None:
        return "-"
    text = f"{e.value * scale:{sign}.1f}"
    return (
        text if e.low is None or e.high is None else f"{text} [{e.low * scale:{sign}.1f}, {e.high * scale:{sign}.1f}]"
    )


def flat_text(value: "Mapping[str, JsonValue]", prefix: str = "", depth: int = 2) -> str:
    """`a 1, b.c 2`: two levels deep, a group of zeros as one."""
    parts: list[str] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            zeros = item and all(v == 0 for v in item.values())
            inner = f"{prefix}{key} 0" if zeros else flat_text(item, f"{prefix}{key}.", depth - 1)
            parts.append(inner if depth > 1 else "")
        else:
            parts.append(f"{prefix}{key} {item:.4g}" if isinstance(item, float) else f"{prefix}{key} {item}")
    return ", ".join(p for p in parts if p)
