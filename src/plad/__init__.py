"""plad: preference-based distillation of language models (PLaD)."""

from importlib import import_module
from typing import TYPE_CHECKING

from plad.version import __version__

if TYPE_CHECKING:
    from plad.config.file import load_config
    from plad.config.root import Config
    from plad.data.prepare import prepare
    from plad.errors import PladError
    from plad.evaluate.run import evaluate_systems
    from plad.pipeline.run import run
    from plad.policy.load import load_policy
    from plad.records import Example, Generation, Judgement, Pair
    from plad.rundir.directory import open_run
    from plad.scoring.score import score

_HOMES = {
    "Config": "plad.config.root",
    "Example": "plad.records",
    "Generation": "plad.records",
    "Judgement": "plad.records",
    "Pair": "plad.records",
    "PladError": "plad.errors",
    "evaluate_systems": "plad.evaluate.run",
    "load_config": "plad.config.file",
    "load_policy": "plad.policy.load",
    "open_run": "plad.rundir.directory",
    "prepare": "plad.data.prepare",
    "run": "plad.pipeline.run",
    "score": "plad.scoring.score",
}

__all__ = [
    "Config", "Example", "Generation", "Judgement", "Pair", "PladError", "__version__", "evaluate_systems",
    "load_config", "load_policy", "open_run", "prepare", "run", "score",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'plad' has no attribute {name!r}")
