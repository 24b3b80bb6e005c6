"""Commands around a run: plan it, search its settings, train and check judges, hand over what it made."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from plad.cli.app import (
    AsJson,
    ConfigPath,
    Limit,
    Overrides,
    RunPath,
    SkipInvalid,
    Verify,
    limited,
    print_result,
)
from plad.cli.guard import guard, resume_command
from plad.errors import ConfigError
from plad.extras.export.handover import Handover
from plad.extras.export.targets import TARGETS, targets_help
from plad.extras.export.targets import export as hand_over

commands = typer.Typer()


@commands.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    limit: Limit = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Time a few steps and short answers of the models on this machine, about 20 seconds in all.",
        ),
    ] = True,
    skip_invalid: SkipInvalid = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run will ask, cost and need, before anything is spent."""
    with guard():
        from plad.extras.plan.run import plan as make_plan
        from plad.extras.plan.view import plan_view

        made = make_plan(config, limited(overrides, limit), skip_invalid=skip_invalid, measure=measure)
        print_result(made, as_json, plan_view)


@commands.command()
def sweep(
    config: ConfigPath, overrides: Overrides = None, skip_invalid: SkipInvalid = False, verify: Verify = None
) -> None:
    """Search for the settings of the config's sweep section; the same command again continues."""
    with guard(resume=resume_command()) as guarded:
        from plad.extras.sweep.report import summarize, sweep_view
        from plad.extras.sweep.run import open_sweep, run_sweep
        from plad.extras.sweep.space import open_space

        space = open_space(config, overrides or [])
        with (
            open_sweep(space, skip_invalid=skip_invalid, verify=verify) as opened,
            guarded.log_to(opened.folder / "sweep.log"),
        ):
            study = run_sweep(opened)
            print_result(summarize(study, opened.space, opened.place, opened.measure), False, sweep_view)
            typer.echo(f"report: {opened.folder / 'report/index.html'}")


@commands.command()
def reward(
    config: ConfigPath, overrides: Overrides = None, limit: Limit = None, skip_invalid: SkipInvalid = False
) -> None:
    """Train a reward model from labelled preferences, for use as a judge or a scorer of pairs."""
    with guard(resume=resume_command()) as guarded:
        from plad.config.extras import RewardTraining
        from plad.config.file import load_as
        from plad.extras.reward.facts import summary
        from plad.extras.reward.run import train

        section = load_as(RewardTraining, config, limited(overrides, limit))
        section.out.parent.mkdir(parents=True, exist_ok=True)
        with guarded.log_to(section.out.with_name(f"{section.out.name}.log")):
            facts = train(section, config.parent, skip_invalid=skip_invalid)
        for line in summary(facts):
            typer.echo(line)
        typer.echo(f"reward model: {section.out}")


@commands.command("judge-check")
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
        from plad.config.pairs import PreferenceColumns
        from plad.data.preferences import read_preferences
        from plad.evaluate.stats import Bootstrap
        from plad.extras.reward.judge_check import check, check_view, data_source, read_judge
        from plad.judges.base import JudgeResources, kind_of

        section = kind_of(read_judge(judge).placed(Path(), verify))
        source = data_source(data)
        rows = read_preferences(source, PreferenceColumns(), limit=limit, skip_invalid=skip_invalid).rows
        loaded = section.open(JudgeResources(seed=seed, open_ledger=lambda: Ledger(ledger)))
        print_result(check(loaded, rows, Bootstrap(seed=seed)), as_json, check_view)


def _known_target(name: str) -> str:
    if name not in TARGETS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, TARGETS))}.")
    return name


@commands.command()
def export(
    run: RunPath,
    to: Annotated[
        str,
        typer.Option(
            "--to", callback=_known_target, metavar="|".join(TARGETS), help=targets_help(), show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Default: in RUN/export."),
    ] = None,
    repo: Annotated[str | None, typer.Option("--repo", metavar="OWNER/NAME", help="Repository on the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository on the hub may be seen by all.")] = False,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option("--dtype", help="Type of the student's weights. Default: the one they were trained in."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of the hub: show what would be uploaded, and upload nothing.")
    ] = False,
) -> None:
    """Hand over the pairs or the student."""
    with guard():
        from plad.rundir.manifest import read_manifest

        for option, given in (("--dry-run", dry_run), ("--public", public), ("--repo", repo)):
            if given and to != "hub":
                raise ConfigError("is for --to hub alone", where=option, fix=f"remove {option}")
        read_manifest(run)
        typer.echo(hand_over(to, Handover(run, out, repo, public, dtype, dry_run)))
