"""A folder to start from: an annotated config and a small real data set."""

import re
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from plad.cli.guard import guard
from plad.errors import ConfigError
from plad.rundir.atomic import write_text

DATA = ("train.jsonl", "validation.jsonl", "test.jsonl", "LICENSE.txt", "NOTICE.txt")


commands = typer.Typer()


@commands.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.", show_default=False)],
) -> None:
    """Write an annotated config and a small real data set."""
    with guard():
        for file in write_project(folder):
            typer.echo(f"wrote {file}")
        typer.echo(f"next: plad validate {folder / 'config.yaml'}")


def write_project(folder: Path) -> list[Path]:
    """Write config.yaml and data/ into a new or empty folder; returns the files.

    Raises:
        ConfigError: the folder holds something; nothing is overwritten.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise ConfigError(
            "exists and is not empty; nothing is overwritten", where=str(folder), fix="name a new or empty folder"
        )
    (folder / "data").mkdir(parents=True)
    package = files("plad")
    with as_file(package / "extras/demo/data") as source:
        for name in DATA:
            shutil.copyfile(source / name, folder / "data" / name)
    text = (package / "cli/template.yaml").read_text(encoding="utf-8")
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name)
    write_text(folder / "config.yaml", text.replace("runs/NAME", f"runs/{name}", 1))
    return [folder / "config.yaml", *(folder / "data" / name for name in DATA)]
