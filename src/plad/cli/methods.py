"""`plad compare CONFIG --methods ...`: a run of a config with its baselines, or others in their place."""

from collections.abc import Sequence
from pathlib import Path

from plad.config.file import load_config
from plad.errors import ConfigError


def comparison_overrides(path: Path, overrides: Sequence[str], methods: str | None) -> list[str]:
    """The setting that makes a run of a config compare methods.

    Args:
        methods: names, with commas between them; None for the config's own.

    Raises:
        ConfigError: there are none.
    """
    if methods is None:
        if load_config(path, overrides).evaluate.baselines:
            return []
        raise ConfigError(
            "names no method to compare",
            where=str(path),
            fix="--methods sft,seqkd,kd\nor evaluate.baselines: [sft, seqkd, kd]",
        )
    names = [name.strip() for name in methods.split(",") if name.strip()]
    return [f"evaluate.baselines=[{', '.join(names)}]"]
