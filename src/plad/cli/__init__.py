"""The command line: everything a person types or sees in a terminal.

To add a command, write a module here with `commands = typer.Typer()` and a function under `@commands.command()`,
and name the module in `_SUBJECTS`. Imports that weigh anything stand inside functions: `plad --help` is quick.
"""

import os
import sys
from io import TextIOWrapper
from typing import TextIO, cast

from plad.cli import compare, doctor, extras, init, ledger, run, show, status, use
from plad.cli.app import app

__all__ = ["app", "main"]

_SUBJECTS = (run, extras, status, show, use, ledger, compare, init, doctor)  # in the order of --help

for _subject in _SUBJECTS:
    app.add_typer(_subject.commands)


def main() -> None:
    """Entry point."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if isinstance(out := cast(TextIO, sys.stdout), TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a terminal that can't show a letter shows its number
    app(prog_name="plad")
