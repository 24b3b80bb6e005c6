"""Commands that train and measure."""

from pathlib import Path
from typing import Annotated

import typer

from plad.cli.app import (
    AsJson,
    ConfigPath,
    Overrides,
    SkipInvalid,
    StageName,
    Verify,
    app,
    execute,
    show_found,
)
from plad.cli.guard import guard, resume_command
from plad.report.console import console
from plad.rundir.directory import STAGES


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    to: Annotated[
        StageName | None, typer.Option("--to", metavar="STAGE", help=f"Last stage to run: {', '.join(STAGES)}.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N rows of each file.")
    ] = None,
    clean: Annotated[
        StageName | None,
        typer.Option(
            "--clean",
            metavar="STAGE",
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
    changes = [*(overrides or []), *([f"data.limit={limit}"] if limit is not None else [])]
    execute(config, changes, to=to, clean=clean, donors=reuse or (), skip_invalid=skip_invalid, verify=verify)


def _stage_command(stage: str, text: str) -> None:
    def command(
        config: ConfigPath, overrides: Overrides = None, skip_invalid: SkipInvalid = False, verify: Verify = None
    ) -> None:
        execute(config, overrides or [], only=stage, skip_invalid=skip_invalid, verify=verify)

    app.command(stage, help=text)(command)


_stage_command("sft", "Only fine-tune teacher and student.")
_stage_command("generate", "Only sample answers of both.")
_stage_command("pair", "Only build the preference pairs.")
_stage_command("distill", "Only train the student on the pairs.")
_stage_command("baselines", "Only train the methods that the student is compared with.")
_stage_command("evaluate", "Only compare the systems on the test rows.")


@app.command()
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

        run = target if target.is_dir() else load_config(target, overrides or []).run.dir
        if terminal:
            from plad.report.facts import read_facts
            from plad.report.terminal import report_view

            show_found(read_facts(run), False, report_view)
            return
        from plad.report.page import render_report

        render_report(run)
        typer.echo(f"report: {run / 'report/index.html'}")


@app.command()
def sweep(
    config: ConfigPath, overrides: Overrides = None, skip_invalid: SkipInvalid = False, verify: Verify = None
) -> None:
    """Search for the settings of the config's sweep section; the same command again continues."""
    with guard(resume=resume_command()) as guarded:
        from plad.cli import views
        from plad.extras.sweep.report import found
        from plad.extras.sweep.run import open_sweep, run_sweep
        from plad.extras.sweep.space import open_space

        space = open_space(config, overrides or [])
        with (
            open_sweep(space, skip_invalid=skip_invalid, verify=verify) as opened,
            guarded.log_to(opened.folder / "sweep.log"),
        ):
            study = run_sweep(opened)
            screen = console()
            for part in views.sweep_view(found(study, space, opened.place)):
                screen.print(part)
            typer.echo(f"report: {opened.folder / 'report/index.html'}")


@app.command()
def reward(
    config: ConfigPath,
    overrides: Overrides = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N rows of each file.")
    ] = None,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Train a reward model from labelled preferences, for use as a judge or a scorer of pairs."""
    with guard(resume=resume_command()) as guarded:
        from plad.config.file import load_as
        from plad.config.reward import RewardTraining
        from plad.extras.reward.card import summary
        from plad.extras.reward.run import train

        extra = [f"data.limit={limit}"] if limit is not None else []
        section = load_as(RewardTraining, config, [*(overrides or []), *extra])
        section.out.parent.mkdir(parents=True, exist_ok=True)
        with guarded.log_to(section.out.with_name(f"{section.out.name}.log")):
            facts = train(section, config.parent, skip_invalid=skip_invalid)
        for line in summary(facts):
            typer.echo(line)
        typer.echo(f"reward model: {section.out}")


@app.command("judge-check")
def judge_check(
    judge: Annotated[
        str,
        typer.Argument(
            metavar="JUDGE",
            help="A reward model's folder, a YAML file with a judge's section, or the section itself.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Rows prompt, chosen, rejected (tie, references): a file, a hub name, or pandalm, which ships.",
        ),
    ] = "pandalm",
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N rows.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sides, labels and resampling.")] = 0,
    ledger: Annotated[Path, typer.Option("--ledger", metavar="FILE", help="Keeps the replies of an LLM judge.")] = Path(
        "judge-check.sqlite"
    ),
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
    as_json: AsJson = False,
) -> None:
    """Hold a judge against people, on pairs that they labelled."""
    with guard(resume=resume_command()):
        from plad.answers.ledger import Ledger
        from plad.cli import judge_check as checking
        from plad.config import VerifiableJudge
        from plad.config.reward import PreferenceColumns
        from plad.data.preferences import read_preferences
        from plad.evaluate.stats import Bootstrap
        from plad.judges.base import load_judge

        section = checking.read_judge(judge)
        if isinstance(section, VerifiableJudge):
            section = section.verified_by(verify)
        source = checking.data_source(data)
        rows = read_preferences(source, PreferenceColumns(), limit=limit, skip_invalid=skip_invalid).rows
        loaded = load_judge(section, open_ledger=lambda: Ledger(ledger), seed=seed)
        found = checking.check(loaded, rows, Bootstrap(seed=seed))
        show_found(found, as_json, checking.view)
