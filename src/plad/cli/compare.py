"""`plad compare`: the systems of one or several runs; or the methods of a config, trained first."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plad.cli.app import AsJson, SkipInvalid, Verify, execute, limited, print_result
from plad.cli.guard import guard
from plad.cli.tables import estimate_text
from plad.errors import ConfigError
from plad.report.console import table
from plad.rundir.manifest import read_manifest

if TYPE_CHECKING:
    from rich.console import RenderableType

commands = typer.Typer()

MetricsJson = Mapping[str, Any]


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
            from plad.report.compare import write_comparison

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
    if methods is None:
        from plad.config.file import load_config

        if load_config(path, overrides).evaluate.baselines:
            return []
        raise ConfigError(
            "names no method to compare",
            where=str(path),
            fix="--methods sft,seqkd,kd\nor evaluate.baselines: [sft, seqkd, kd]",
        )
    names = [name.strip() for name in methods.split(",") if name.strip()]
    return [f"evaluate.baselines=[{', '.join(names)}]"]


def by_name(runs: Sequence[Path]) -> dict[str, Path]:
    """Run directories by a name that tells them apart; one that is named twice counts once."""
    places = {run.resolve(): run for run in runs}
    depth = 1
    while len({p.parts[-depth:] for p in places}) < len(places):
        depth += 1
    return {str(Path(*place.parts[-depth:])): run for place, run in places.items()}


def metrics_of(runs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """metrics.json of each run, by a name that tells them apart; then, of runs that differ only in seed, their mean.

    Raises:
        RunDirError: one is no run directory, or was not evaluated yet.
    """
    from plad.evaluate.metrics import Metrics

    found: dict[str, dict[str, Any]] = {}
    places = by_name(runs)
    for name, run in places.items():
        read_manifest(run)
        found[name] = Metrics.read(run).to_json()
    return found | (_means_over_seeds(places) if len(places) > 1 else {})


def _means_over_seeds(places: dict[str, Path]) -> dict[str, dict[str, Any]]:
    from plad.evaluate.seeds import mean_metrics, seed_groups

    return {
        f"mean of {len(group)} seeds ({', '.join(group)})": mean_metrics({n: places[n] for n in group}).to_json()
        for group in seed_groups(places)
    }


def compare_view(runs: Mapping[str, MetricsJson]) -> Iterator["RenderableType | str"]:
    """Systems x metrics over runs, with 95 % intervals, and what each student gained."""
    judges = dict.fromkeys(j for m in runs.values() for s in m["systems"].values() for j in s.get("win_rate", {}))
    for judge in judges:
        rows = [
            (*_name(run, system, runs), *_win_rate(s["win_rate"][judge]))
            for run, m in runs.items()
            for system, s in m["systems"].items()
            if judge in s.get("win_rate", {})
        ]
        yield table(f"win rate against the human target, judge {judge} (%)", ["", "value [95 %]", "n", "w/t/l"], rows)
    rows = [
        (*_name(run, system, runs), *(_percent(s.get(m)) for m in ("rouge1", "rouge2", "rougeL")), _words(s), _share(s))
        for run, metrics in runs.items()
        for system, s in metrics["systems"].items()
    ]
    yield table("texts", ["", "ROUGE-1", "ROUGE-2", "ROUGE-L", "words", "cut off"], rows)
    for difference in dict.fromkeys(d for m in runs.values() for d in m.get("differences", {})):
        rows = [
            (f"{run} {metric}" if len(runs) > 1 else metric, *_gain(value, metric))
            for run, m in runs.items()
            for metric, value in _metrics(m.get("differences", {}).get(difference, {}))
        ]
        yield table(f"{difference}, paired over prompts", ["", "value [95 %]", "n", "p"], rows)
    for run, m in runs.items():
        yield from (f"{run}: {warning}" for warning in m.get("warnings", []))


def _name(run: str, system: str, runs: Mapping[str, MetricsJson]) -> tuple[str]:
    return (f"{run} {system}" if len(runs) > 1 else system,)


def _metrics(difference: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for metric, value in difference.items():
        if metric == "win_rate":
            yield from ((f"win rate, {judge}", v) for judge, v in value.items())
        else:
            yield metric, value


def _win_rate(e: Mapping[str, Any]) -> tuple[str, str, str]:
    return estimate_text(e, 100), str(e["n"]), f"{e['wins']}/{e['ties']}/{e['losses']}"


def _gain(e: Mapping[str, Any], metric: str) -> tuple[str, str, str]:
    p = e.get("p")
    return estimate_text(e, 1 if metric == "words" else 100, "+"), str(e.get("n", "")), "" if p is None else f"{p:.3g}"


def _percent(e: Mapping[str, Any] | None) -> str:
    return "-" if e is None or e.get("value") is None else f"{e['value'] * 100:.1f}"


def _words(system: Mapping[str, Any]) -> str:
    value = (system.get("words") or {}).get("value")
    return "-" if value is None else f"{value:.1f}"


def _share(system: Mapping[str, Any]) -> str:
    value = system.get("truncated")
    return "-" if value is None else f"{value:.1%}"
