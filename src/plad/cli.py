"""The command line: parse, call, print. Heavy imports stand inside the commands, so that `--help` is quick."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from plad import __version__
from plad.guard import guard, resume_command
from plad.rundir import STAGES
from plad.terminal import console

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
    _execute(config, changes, to=to, clean=clean, donors=reuse or (), skip_invalid=skip_invalid, verify=verify)


def _stage_command(stage: str, text: str) -> None:
    def command(
        config: ConfigPath, overrides: Overrides = None, skip_invalid: SkipInvalid = False, verify: Verify = None
    ) -> None:
        _execute(config, overrides or [], only=stage, skip_invalid=skip_invalid, verify=verify)

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
        _execute(target, overrides or [], only="report", skip_invalid=skip_invalid, verify=verify)
        return
    with guard():
        from plad.config_file import load_config

        run = target if target.is_dir() else load_config(target, overrides or []).run.dir
        if terminal:
            from plad.report.facts import read_facts
            from plad.report.terminal import report_view

            _print(read_facts(run), False, report_view)
            return
        from plad.report.page import render_report

        render_report(run)
        typer.echo(f"report: {run / 'report/index.html'}")


def _execute(path: Path, overrides: list[str], *, skip_invalid: bool, **stages: Any) -> None:
    with guard(resume=resume_command()) as guarded:
        from plad import pipeline
        from plad.config_file import load_config, write_config
        from plad.rundir import open_run, read_manifest

        config = load_config(path, overrides)
        for donor in stages.get("donors", ()):
            read_manifest(donor)  # a wrong path is said at once
        with open_run(config.run.dir) as opened, guarded.log_to(opened / "run.log"), write_config(opened, path, config):
            pipeline.run(config, opened, base=path.parent, skip_invalid=skip_invalid, **stages)
            page = opened / "report/index.html"
            if "report" in opened.manifest["stages"] and page.is_file():
                typer.echo(f"report: {page}")


@app.command()
def sweep(
    config: ConfigPath, overrides: Overrides = None, skip_invalid: SkipInvalid = False, verify: Verify = None
) -> None:
    """Search for the settings of the config's sweep section; the same command again continues."""
    with guard(resume=resume_command()) as guarded:
        from plad import views
        from plad.sweep.report import found
        from plad.sweep.run import open_sweep, run_sweep
        from plad.sweep.space import open_space

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
def validate(
    config: ConfigPath,
    overrides: Overrides = None,
    skip_invalid: SkipInvalid = False,
    verify: Verify = None,
    online: Annotated[bool, typer.Option("--online", help="Send one request to a teacher behind an endpoint.")] = False,
) -> None:
    """Find everything that is wrong before a model is loaded."""
    with guard():
        from plad.problems import join
        from plad.validate import validate as examine
        from plad.views import validation_view

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
        from plad.plan.run import plan as make
        from plad.plan.view import plan_view

        _print(make(config, overrides or [], skip_invalid=skip_invalid), as_json, plan_view)


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
        from plad.config.reward import RewardTraining
        from plad.config_file import load_as
        from plad.reward.card import summary
        from plad.reward.run import train

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
        from plad import judge_check as checking
        from plad.config import VerifiableJudge
        from plad.config.reward import PreferenceColumns
        from plad.data.preferences import read_preferences
        from plad.generate.ledger import Ledger
        from plad.judges import load_judge

        section = checking.read_judge(judge)
        if isinstance(section, VerifiableJudge):
            section = section.verified_by(verify)
        source = checking.data_source(data)
        rows = read_preferences(source, PreferenceColumns(), limit=limit, skip_invalid=skip_invalid).rows
        loaded = load_judge(section, open_ledger=lambda: Ledger(ledger), seed=seed)
        found = checking.check(loaded, rows, resamples=10_000, seed=seed)
        _print(found, as_json, checking.view)


@app.command()
def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show stages, counts, seconds and versions; also while a run goes on."""
    with guard():
        from plad import inspect_run, views

        found = inspect_run.status(run)
        _print(found, as_json, views.status_view)


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
        from plad import inspect_run, views

        found = inspect_run.examples_of(run, kind, n)
        _print(found, as_json, lambda rows: map(views.example_view, rows))


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
        from plad import inspect_ledger, views

        if export is not None:
            typer.echo(f"wrote {inspect_ledger.export_ledger(run, export):,} answers to {export}")
            return
        _print(inspect_ledger.ledger_summary(run), as_json, views.ledger_view)


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
        from plad.methods import comparison_overrides

        with guard():
            changes = [*others, *comparison_overrides(Path(first), others, methods)]
        changes += [f"data.limit={limit}"] if limit is not None else []
        _execute(Path(first), changes, skip_invalid=skip_invalid, verify=verify)
        with guard():
            from plad.config_file import load_config
            from plad.report.terminal import methods_view

            _print(load_config(Path(first), changes).run.dir, False, methods_view)
        return
    with guard():
        from plad import inspect_run, views
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
        _print(found, as_json, views.compare_view)


def _print(found: Any, as_json: bool, view: Any) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))  # ASCII: control characters stay escaped
        return
    screen = console()
    for part in view(found):
        screen.print(part)


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
            from plad.hub import push

            typer.echo(f"uploaded: {push(run, repo, public=public)}")
            return
        from plad.data.preference_exports import registration
        from plad.export import export as hand_over

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
        from plad.init import init as write

        for file in write(folder):
            typer.echo(f"wrote {file}")
        typer.echo(f"next: plad validate {folder / 'config.yaml'}")


@app.command()
def doctor() -> None:
    """Print versions, device and memory for a bug report."""
    with guard():
        from plad.doctor import examine
        from plad.terminal import clean

        for name, value in examine():
            typer.echo(clean(f"{name:<26} {value}"))


def main() -> None:
    """Entry point."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app(prog_name="plad")
