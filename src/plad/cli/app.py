"""The application that commands are added to, the options that several share, and how they run and print."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from plad import __version__
from plad.cli.guard import guard, resume_command
from plad.report.console import console

app = typer.Typer(
    help="Distil a large language model into a small one by preference (PLaD).",
    epilog="Exit codes: 0 fine, 1 unexpected, 2 bad input or config, 3 provider refused, 4 stopped short: more "
    "failures than allowed, or the budget, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

StageName = Literal["data", "sft", "generate", "pair", "distill", "baselines", "evaluate", "report"]
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="A.B=VALUE", help="Settings that come after the file.", show_default=False),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)]
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


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"plad {__version__}")
        raise typer.Exit


def execute(path: Path, overrides: list[str], *, skip_invalid: bool, **stages: Any) -> None:
    """Run stages of a config; the page's place is printed at the end."""
    with guard(resume=resume_command()) as guarded:
        from plad.config.file import load_config
        from plad.pipeline import run as pipeline
        from plad.rundir.config_files import write_config
        from plad.rundir.directory import open_run, read_manifest

        config = load_config(path, overrides)
        for donor in stages.get("donors", ()):
            read_manifest(donor)  # a wrong path is said at once
        with open_run(config.run.dir) as opened, guarded.log_to(opened / "run.log"), write_config(opened, path, config):
            pipeline.run(config, opened, base=path.parent, skip_invalid=skip_invalid, **stages)
            page = opened / "report/index.html"
            if "report" in opened.manifest["stages"] and page.is_file():
                typer.echo(f"report: {page}")


def show_found(found: Any, as_json: bool, view: Any) -> None:
    """Print what a view shows of `found`, or `found` itself as JSON."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))  # ASCII: control characters stay escaped
        return
    screen = console()
    for part in view(found):
        screen.print(part)
