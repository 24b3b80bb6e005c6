"""The command line: parse, call, print. Heavy imports stand inside the commands, so that `--help` is quick."""

import os

from plad.cli import build, look
from plad.cli.app import StageName, app

__all__ = ["StageName", "app", "build", "look", "main"]


def main() -> None:
    """Entry point."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app(prog_name="plad")
