"""`plad compare`: the systems of one or several runs; or the methods of a config, trained first."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plad.cli.app import AsJson, SkipInvalid, Verify, execute, limited, print_result
from plad.cli.guard import guard
from plad.cli.tables import estimate_text
from plad.errors import ConfigError
from plad.report.console import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from plad.evaluate.metrics import Difference, Metrics, SystemDifference, SystemFigures

commands = typer.Typer()


@commands.command()
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
        _train_and_compare(Path(first), others, methods, limit, skip_invalid, verify)
        return
    with guard():
        if methods is not None or limit is not None:
            raise ConfigError("--methods and --limit go with a config", where=first, fix="plad compare CONFIG.yaml ...")
        runs = [Path(target) for target in targets]
        if html is not None:
            from plad.report.comparison import write_comparison

            write_comparison(by_name(runs), html)
            typer.echo(f"comparison: {html}")
            return
        print_result(metrics_of(runs), as_json, compare_view)


def _train_and_compare(
    config: Path, overrides: list[str], methods: str | None, limit: int | None, skip_invalid: bool, verify: str | None
) -> None:
    with guard():
        changes = limited([*overrides, *comparison_overrides(config, overrides, methods)], limit)
    execute(config, changes, skip_invalid=skip_invalid, verify=verify)
    with guard():
        from plad.config.file import load_config
        from plad.report.terminal import methods_view

        print_result(load_config(config, changes).run.dir, False, methods_view)


def comparison_overrides(path: Path, overrides: Sequence[str], methods: str | None) -> list[str]:
    """The setting that makes a run of a config compare methods.

    Args:
        methods: names, with commas between them; None for the config's own.

    Raises:
        ConfigError: there are none.
    """
    if methods is not None:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        return [f"evaluate.baselines=[{', '.join(names)}]"]
    from plad.config.file import load_config

    if load_config(path, overrides).evaluate.baselines:
        return []
    raise ConfigError(
        "names no method to compare",
        where=str(path),
        fix="--methods sft,seqkd,kd\nor evaluate.baselines: [sft, seqkd, kd]",
    )


def by_name(runs: Sequence[Path]) -> dict[str, Path]:
    """Run directories by a name that tells them apart; one that is named twice counts once."""
    places = {run.resolve(): run for run in runs}
    depth = 1
    while len({p.parts[-depth:] for p in places}) < len(places):
        depth += 1
    return {str(Path(*place.parts[-depth:])): run for place, run in places.items()}


def metrics_of(runs: Sequence[Path]) -> "dict[str, Metrics]":
    """The metrics of each run, by a name that tells them apart; then, of runs that differ only in seed, their mean.

    Raises:
        RunDirError: one is no run directory, or was not evaluated yet.
    """
    from plad.evaluate.metrics import Metrics
    from plad.rundir.manifest import read_manifest

    places, metrics = by_name(runs), dict[str, Metrics]()
    for name, run in places.items():
        read_manifest(run)
        metrics[name] = Metrics.read(run)
    if len(places) > 1:
        from plad.evaluate.seeds import mean_metrics, seed_groups

        for group in seed_groups(places):
            mean = mean_metrics({name: places[name] for name in group})
            metrics[f"mean of {len(group)} seeds ({', '.join(group)})"] = mean
    return metrics


def compare_view(runs: "Mapping[str, Metrics]") -> Iterator["RenderableType | str"]:
    """Systems x metrics over runs, with 95 % intervals, and what each student gained."""
    several = len(runs) > 1
    systems = [(f"{run} {name}" if several else name, s) for run, m in runs.items() for name, s in m.systems.items()]
    for judge in dict.fromkeys(judge for _, s in systems for judge in s.win_rate):
        rates = [(name, s.win_rate[judge]) for name, s in systems if judge in s.win_rate]
        rows = [(name, estimate_text(r, 100), str(r.n), f"{r.wins}/{r.ties}/{r.losses}") for name, r in rates]
        yield table(f"win rate against the human target, judge {judge} (%)", ["", "value [95 %]", "n", "w/t/l"], rows)
    yield table("texts", ["", "ROUGE-1", "ROUGE-2", "ROUGE-L", "words", "cut off"], [_texts(*s) for s in systems])
    yield from _duels(runs)
    for difference in dict.fromkeys(d for m in runs.values() for d in m.differences):
        rows = [
            (f"{run} {metric}" if several else metric, estimate_text(e, scale, "+"), str(e.n), p)
            for run, m in runs.items()
            if difference in m.differences
            for metric, e, scale in _gains(m.differences[difference])
            for p in ["" if e.p is None else f"{e.p:.3g}"]
        ]
        yield table(f"{difference}, paired over prompts", ["", "value [95 %]", "n", "p"], rows)
    for run, m in runs.items():
        yield from (f"{run}: {warning}" for warning in m.warnings)


def _duels(runs: "Mapping[str, Metrics]") -> Iterator["RenderableType"]:
    """How often one system beats another, where systems were compared with each other."""
    rows = [
        (
            " ".join([*([run] if len(runs) > 1 else []), pair.replace(" - ", " against ")]),
            estimate_text(e, 100),
            str(e.n),
            f"{e.wins}/{e.ties}/{e.losses}",
            "" if e.p is None else f"{e.p:.3g}",
        )
        for run, m in runs.items()
        for pair, difference in m.differences.items()
        for e in difference.against.values()
    ]
    if rows:
        yield table("systems against each other (%), ties half", ["", "value [95 %]", "n", "w/t/l", "p"], rows)


def _texts(name: str, system: "SystemFigures") -> tuple[str, ...]:
    figures = [(system.rouge1, 100), (system.rouge2, 100), (system.rougeL, 100), (system.words, 1)]
    values = ("-" if e is None or e.value is None else f"{e.value * scale:.1f}" for e, scale in figures)
    return (name, *values, "-" if system.truncated is None else f"{system.truncated:.1%}")


def _gains(difference: "SystemDifference") -> "Iterator[tuple[str, Difference, float]]":
    """Each metric's difference with the scale on which it is shown."""
    yield from ((f"win rate, {judge}", e, 100) for judge, e in difference.win_rate.items())
    for metric in ("rouge1", "rouge2", "rougeL", "words"):
        e = difference.metric(metric)
        if e is not None:
            yield metric, e, 1 if metric == "words" else 100
