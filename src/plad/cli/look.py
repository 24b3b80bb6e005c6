"""Commands that check, show and hand over."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from plad.cli.app import (
    AsJson,
    ConfigPath,
    Overrides,
    RunPath,
    SkipInvalid,
    Verify,
    app,
    execute,
    show_found,
)
from plad.cli.guard import guard


@app.command()
def validate(
    config: ConfigPath,
    overrides: Overrides = None,
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
    online: Annotated[bool, typer.Option("--online", help="Send one request to a teacher behind an endpoint.")] = False,
) -> None:
    """Find everything that is wrong before a model is loaded."""
    with guard():
        from plad.cli.validate import validate as examine
        from plad.cli.views import validation_view
        from plad.errors import join

        found = examine(config, overrides or [], skip_invalid=skip_invalid, verify=verify, online=online)
        for line in validation_view(found):
            typer.echo(line)
        if found.problems:
            raise join(found.problems)


@app.command()
def plan(
    config: ConfigPath, overrides: Overrides = None, skip_invalid: SkipInvalid = False, as_json: AsJson = False
) -> None:
    """Show what a run will ask, cost and need, before anything is spent."""
    with guard():
        from plad.extras.plan.run import plan as make
        from plad.extras.plan.view import plan_view

        show_found(make(config, overrides or [], skip_invalid=skip_invalid), as_json, plan_view)


@app.command()
def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show stages, counts, seconds and versions; also while a run goes on."""
    with guard():
        from plad.cli import inspect_run, views

        found = inspect_run.status(run)
        show_found(found, as_json, views.status_view)


@app.command()
def show(
    run: RunPath,
    kind: Annotated[
        Literal["pairs", "generations", "judgements"],
        typer.Argument(
            metavar="pairs|generations|judgements",
            help="The first pairs or judgements, or the latest answers.",
            show_default=False,
        ),
    ],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show examples of what a run holds."""
    with guard():
        from plad.cli import inspect_run, views

        found = inspect_run.examples_of(run, kind, n)
        show_found(found, as_json, lambda rows: map(views.example_view, rows))


@app.command()
def ledger(
    run: RunPath,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write all answers to a parquet file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the answers that a run got: outcomes, tokens, cost, requests."""
    with guard():
        from plad.cli import inspect_ledger, views

        if export is not None:
            typer.echo(f"wrote {inspect_ledger.export_ledger(run, export):,} answers to {export}")
            return
        show_found(inspect_ledger.ledger_summary(run), as_json, views.ledger_view)


@app.command()
def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... | CONFIG.yaml [A.B=VALUE]...",
            help="Run directories; or a config, whose baselines are trained and compared.",
            show_default=False,
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="A,B",
            help="With a config, instead of its evaluate.baselines: sft, seqkd, kd, f_distill-js, minillm, gkd, ...",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="With a config: the first N rows of each file."),
    ] = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page instead: their students side by side."),
    ] = None,
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
) -> None:
    """Compare the systems of one or several runs; or train and compare the methods of a config."""
    first, *others = targets
    if first.endswith((".yaml", ".yml")) and not Path(first).is_dir():
        from plad.cli.methods import comparison_overrides

        with guard():
            changes = [*others, *comparison_overrides(Path(first), others, methods)]
        changes += [f"data.limit={limit}"] if limit is not None else []
        execute(Path(first), changes, skip_invalid=skip_invalid, verify=verify)
        with guard():
            from plad.config.file import load_config
            from plad.report.terminal import methods_view

            show_found(load_config(Path(first), changes).run.dir, False, methods_view)
        return
    with guard():
        from plad.cli import inspect_run, views
        from plad.errors import ConfigError

        if methods is not None or limit is not None:
            raise ConfigError("--methods and --limit go with a config", where=first, fix="plad compare CONFIG.yaml ...")
        runs = [Path(target) for target in targets]
        if html is not None:
            from plad.report.compare import write_comparison

            write_comparison(inspect_run.by_name(runs), html)
            typer.echo(f"comparison: {html}")
            return
        found = inspect_run.metrics_of(runs)
        show_found(found, as_json, views.compare_view)


@app.command()
def export(
    run: RunPath,
    to: Annotated[
        Literal["trl", "llamafactory", "axolotl", "merged", "gguf", "hub"],
        typer.Option(
            "--to",
            metavar="trl|llamafactory|axolotl|merged|gguf|hub",
            help="trl, llamafactory, axolotl: the pairs as each takes preferences. merged: the student as one model "
            "folder. gguf: the student as one file. hub: the student with its card, uploaded with HF_TOKEN.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Default: in RUN/export."),
    ] = None,
    repo: Annotated[str | None, typer.Option("--repo", metavar="OWNER/NAME", help="Repository on the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository on the hub may be seen by all.")] = False,
) -> None:
    """Hand over the pairs or the student."""
    with guard():
        if to == "hub":
            from plad.extras.export.hub import push

            typer.echo(f"uploaded: {push(run, repo, public=public)}")
            return
        from plad.extras.export.pairs import registration
        from plad.extras.export.run import export as hand_over

        written = hand_over(run, to, out)
        typer.echo(f"wrote {written}")
        if how := registration(to, written):
            typer.echo(how)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.", show_default=False)],
) -> None:
    """Write an annotated config and a small real data set."""
    with guard():
        from plad.cli.init import init as write

        for file in write(folder):
            typer.echo(f"wrote {file}")
        typer.echo(f"next: plad validate {folder / 'config.yaml'}")


@app.command()
def doctor() -> None:
    """Print versions, device and memory for a bug report."""
    with guard():
        from plad.cli.doctor import examine
        from plad.text import clean

        for name, value in examine():
            typer.echo(clean(f"{name:<26} {value}"))
