"""Where a relative path of a config starts."""

from pathlib import Path


def locate(name: str, base: Path | None) -> str:
    """A data or model path as it is opened.

    A relative path is looked for in `base`, the config's folder, then in the working directory. What exists in neither
    (a hub name) stays as it is.
    """
    place = Path(name).expanduser()
    if base is not None and not place.is_absolute() and (base / place).exists():
        return str(base / place)
    return str(place) if place.exists() else name
