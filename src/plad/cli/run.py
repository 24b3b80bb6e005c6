"""Commands of a run: all stages, one stage, its report; and its config, checked before."""

from pathlib import Path
from typing import Annotated

import typer

from plad.cli.app import (
    ConfigPath,
    Limit,
    Overrides,
    SkipInvalid,
    Verify,
    execute,
    known_stage,
    limited,
    print_result,
    stages_beginning,
)
from plad.cli.guard import guard
from plad.pipeline.stage import NAMES, STAGES

commands = typer.Typer()


@commands.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="STAGE",
            callback=known_stage,
            autocompletion=stages_beginning,
            help=f"Last stage to run: {', '.join(NAMES)}.",
        ),
    ] = None,
    limit: Limit = None,
    clean: Annotated[
        str | None,
        typer.Option(
            "--clean",
            metavar="STAGE",
            callback=known_stage,
            autocompletion=stages_beginning,
            help="Redo this stage and all that depends on it; recorded answers are kept.",
        ),
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            "--reuse", metavar="RUN", help="Take over what this run finished with the same settings; may be repeated."
        ),
    ] = None,
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
) -> None:
    """Run all stages; the same command again continues."""
    changes = limited(overrides, limit)
    execute(config, changes, to=to, clean=clean, donors=reuse or (), skip_invalid=skip_invalid, verify=verify)


def _add_stage_command(stage: str, text: str) -> None:
    def command(
        config: ConfigPath,
        overrides: Overrides = None,
        limit: Limit = None,
        skip_invalid: SkipInvalid = False,
        verify: Verify = None,
    ) -> None:
        execute(config, limited(overrides, limit), only=stage, skip_invalid=skip_invalid, verify=verify)

    commands.command(stage, help=text)(command)


for _stage in STAGES:
    if _stage.command:
        _add_stage_command(_stage.name, _stage.command)


@commands.command()
def report(
    target: Annotated[
        Path,
        typer.Argument(metavar="CONFIG|RUN", help="YAML file of the run, or its directory.", show_default=False),
    ],
    overrides: Overrides = None,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Print the report as tables of 80 columns; write nothing.")
    ] = False,
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
) -> None:
    """Only write the report; of a run directory from its files alone, also while it goes on."""
    if not terminal and not target.is_dir():
        execute(target, overrides or [], only="report", skip_invalid=skip_invalid, verify=verify)
        return
    with guard():
        from plad.config.file import load_config

        folder = target if target.is_dir() else load_config(target, overrides or []).run.dir
        if terminal:
            from plad.report.terminal import report_view

            print_result(folder, False, report_view)
            return
        from plad.report.page import render_report

        render_report(folder)
        typer.echo(f"report: {folder / 'report/index.html'}")


@commands.command()
def validate(
    config: ConfigPath,
    overrides: Overrides = None,
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
    online: Annotated[bool, typer.Option("--online", help="Send one request to a teacher behind an endpoint.")] = False,
) -> None:
    """Find everything that is wrong before a model is loaded."""
    with guard():
        from plad.cli.validate.run import validate as check
        from plad.cli.validate.run import validation_view
        from plad.errors import join

        findings = check(config, overrides or [], skip_invalid=skip_invalid, verify=verify, online=online)
        for line in validation_view(findings):
            typer.echo(line)
        if findings.problems:
            raise join(findings.problems)
