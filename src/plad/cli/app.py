"""The application, the options that several commands share, and how commands run stages and print."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypedDict, TypeVar, Unpack, runtime_checkable

import typer

from plad.cli.guard import guard, resume_command
from plad.pipeline.stage import NAMES
from plad.report.console import console
from plad.version import __version__

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    help="Distil a large language model into a small one by preference (PLaD).",
    epilog="Exit codes: 0 fine, 1 unexpected, 2 bad input or config, 3 provider refused, 4 stopped short: more "
    "failures than allowed, or the budget, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="A.B=VALUE", help="Settings that come after the file.", show_default=False),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N rows of each file.")
]
SkipInvalid = Annotated[bool, typer.Option("--skip-invalid", help="Drop and count data rows that can't be used.")]
Verify = Annotated[
    str | None,
    typer.Option(
        "--verify",
        metavar="FILE.PY:FUNCTION",
        help="Your function for verifiable judges with match: function; module:function works too. Its code runs here.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Result = TypeVar("Result")


@runtime_checkable
class JsonResult(Protocol):
    """A result whose JSON has more, or less, than its fields."""

    def to_json(self) -> object:
        """What --json prints."""
        ...


class Stages(TypedDict, total=False):
    """Which stages a command runs, as `plad.pipeline.run` takes them."""

    to: str | None
    only: str
    clean: str | None
    verify: str | None
    donors: Sequence[Path]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Options of `plad` itself."""
    if version:
        typer.echo(f"plad {__version__}")
        raise typer.Exit


def limited(overrides: list[str] | None, limit: int | None) -> list[str]:
    """Overrides with --limit as one of them."""
    return [*(overrides or []), *([f"data.limit={limit}"] if limit is not None else [])]


def execute(path: Path, overrides: Sequence[str], *, skip_invalid: bool, **stages: Unpack[Stages]) -> None:
    """Run stages of a config; at the end of all of them the verdict is printed, and what to do next."""
    with guard(resume=resume_command()) as guarded:
        from plad.config.file import load_config
        from plad.pipeline import run as pipeline
        from plad.rundir.config_files import write_config
        from plad.rundir.directory import open_run
        from plad.rundir.manifest import read_manifest

        config = load_config(path, overrides)
        for donor in stages.get("donors", ()):
            read_manifest(donor)  # a wrong path is reported at once
        with open_run(config.run.dir) as opened, guarded.log_to(opened / "run.log"), write_config(opened, path, config):
            pipeline.run(config, opened, base=path.parent, skip_invalid=skip_invalid, **stages)
            if (stages.get("only") or stages.get("to") or NAMES[-1]) in ("evaluate", "report"):
                _print_ending(opened.path, [str(path), *overrides])
            page = opened / "report/index.html"
            if "report" in opened.manifest.stages and page.is_file():
                typer.echo(f"report: {page}")


def _print_ending(run: Path, config: Sequence[str]) -> None:
    from plad.report.page import not_fatal
    from plad.report.terminal import ending_view

    with not_fatal("the verdict", run):
        print_result(run, False, lambda run: ending_view(run, config))


def print_result(result: Result, as_json: bool, view: Callable[[Result], "Iterable[RenderableType | str]"]) -> None:
    """Print a result as its view shows it, or as JSON."""
    if as_json:
        typer.echo(json_text(result))
        return
    screen = console()
    for part in view(result):
        whole = getattr(part, "no_wrap", False) is True  # a command to paste is one line, however long
        screen.print(part, soft_wrap=whole)


def json_text(result: object) -> str:
    """A result as JSON; in ASCII, so that control characters stay escaped."""
    return json.dumps(result, indent=2, default=_fields)


def _fields(value: object) -> object:
    if isinstance(value, JsonResult):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    raise TypeError(f"{type(value).__name__} is no JSON")


def stages_beginning(incomplete: str) -> list[str]:
    """What a shell offers to complete the name of a stage."""
    return [name for name in NAMES if name.startswith(incomplete)]


def known_stage(name: str | None) -> str | None:
    """The name of a stage, as typed; anything else is a usage error."""
    if name is not None and name not in NAMES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, NAMES))}.")
    return name
