"""The comparison page: the distilled students of several runs on the test prompts that all of them have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plad.errors import RunDirError
from plad.evaluate.run import STUDENT, TARGET
from plad.evaluate.seeds import prompt_values
from plad.evaluate.stats import SMALL, Bootstrap, paired_difference
from plad.records import Example
from plad.report.facts import Facts, read_facts
from plad.report.html import render
from plad.report.plots.figures import gap_plot, rates_plot
from plad.report.sections.calibration import changes_table
from plad.report.sections.cases import Cases, System, cases, run_systems
from plad.report.sections.costs import cost_of
from plad.report.sections.run_tables import flatten
from plad.report.sections.seeds import NOTE as SEEDS
from plad.report.sections.seeds import Means, seed_means, seeds_table
from plad.report.sections.tables import Cell, Table, difference_cell, metrics_row, results_columns
from plad.report.sections.verdict import BETTER, HEADLINES, SAME, UNKNOWN, WORSE, Verdict, tone_of
from plad.report.sections.verdict import verdict as verdict_of
from plad.report.wording import (
    DASH,
    METRICS,
    NAMES,
    duration,
    harmless,
    interval,
    number,
    order_systems,
    p_value,
    system_name,
)
from plad.rundir.atomic import write_text
from plad.text import redact

RESAMPLES = 10_000
_PLACES = ("run.dir",)  # settings that say where a run stands and not what it is


@dataclass(frozen=True)
class Comparison:
    """What a comparison page shows; the first run is what the others are measured against."""

    names: tuple[str, ...]
    shared: int
    verdict: Verdict
    warnings: tuple[str, ...]
    results: Table
    others: Table
    differences: Table
    seeds: Table | None
    calibration: Table | None
    settings: Table | None


def write_comparison(runs: Mapping[str, Path], out: Path) -> None:
    """Write the comparison page of evaluated runs.

    Args:
        runs: name -> run directory, two or more; the first is what the others are compared with.
        out: the HTML file.

    Raises:
        RunDirError: there is one run only, one has no evaluated student, or they share no test row.
    """
    if len(runs) < 2:
        raise RunDirError("a page compares two runs or more", where=", ".join(runs), fix="name another run")
    facts = {name: read_facts(path) for name, path in runs.items()}
    for name, f in facts.items():
        if f.metrics is None or STUDENT not in f.metrics["systems"]:
            raise RunDirError("has no evaluated student", where=str(runs[name]), fix="plad evaluate CONFIG")
    shared = _shared(facts)
    if not shared:
        raise RunDirError("the runs share no test row", where=", ".join(runs), fix="compare runs of one task")
    values = {name: prompt_values(path).get(STUDENT, {}) for name, path in runs.items()}
    gaps, means = _gaps(values, shared), seed_means(runs)
    c = Comparison(
        names=tuple(runs),
        shared=len(shared),
        verdict=_verdict(facts, gaps, means),
        warnings=(*_warnings(facts, shared), *(w for _, mean in means for w in mean["warnings"])),
        results=_results(facts, means),
        others=_others(facts),
        differences=_differences(gaps),
        seeds=seeds_table(means),
        calibration=changes_table({name: f.metrics for name, f in facts.items() if f.metrics}),
        settings=_settings(facts),
    )
    plots = {"wins": _win_plots(facts), "gap": _gap_plot(gaps, _judge(facts))}
    board = (NAMES, STUDENT) if _one_setting(facts, means) else ({}, c.names[0])
    write_text(out, render("compare.html", _cases(facts, shared), c=c, seeds_note=SEEDS, board=board, **plots))


def _shared(facts: Mapping[str, Facts]) -> dict[str, Example]:
    """Test rows that every run has, with the same prompt and references."""
    first, *others = facts.values()
    return {i: e for i, e in first.test.items() if all(f.test.get(i) == e for f in others)}


Gaps = dict[str, dict[str, dict[str, Any]]]  # run -> measure -> difference from the first run


def _gaps(values: Mapping[str, Mapping[str, Mapping[str, float]]], shared: Mapping[str, Example]) -> Gaps:
    """Every run's student less the first run's, paired over the prompts that both were measured on."""
    (_, base), *others = values.items()
    found: Gaps = {}
    for name, own in others:
        for measure in base:
            ids = [i for i in shared if i in base[measure] and i in own.get(measure, {})]
            if not ids:
                continue
            ours, theirs = (np.array([v[measure][i] for i in ids]) for v in (own, base))
            bounds = None if measure == "words" else (-1.0, 1.0)
            difference = paired_difference(ours, theirs, Bootstrap(RESAMPLES), bounds=bounds)
            found.setdefault(name, {})[measure] = difference.to_json()
    return found


def _judge(facts: Mapping[str, Facts]) -> str | None:
    """The first judge of the first run that judged the student of every run."""
    rates = [f.metrics["systems"][STUDENT]["win_rate"] for f in facts.values() if f.metrics]
    return next((j for j in rates[0] if all(r.get(j, {}).get("n") for r in rates)), None)


def _measure(judge: str | None) -> str:
    return "rougeL" if judge is None else f"win_rate/{judge}"


def _verdict(facts: Mapping[str, Facts], gaps: Gaps, means: Means) -> Verdict:
    """How each run stands against the first one, by the judge that all runs have, else by ROUGE-L.

    Of runs that differ in their seed only: what distillation gained over all of them.
    """
    if _one_setting(facts, means):
        return verdict_of(means[0][1])
    judge, (first, *others) = _judge(facts), facts
    measure = _measure(judge)
    found = {name: gaps.get(name, {}).get(measure, {}) for name in others}
    said = [f"{name}: {_said(e)}." for name, e in found.items() if e.get("value") is not None]
    what = "ROUGE-L" if judge is None else f"win rate, judge {judge},"
    sentence = f"The difference in {what} from {first}:" if said else "Nothing was measured in all runs."
    scores = []
    for name, f in facts.items():
        own = f.metrics["systems"][STUDENT] if f.metrics else {}
        e = own.get("rougeL", {}) if judge is None else own["win_rate"][judge]
        if e.get("value") is not None:
            scores.append((name, number(e["value"], scale=100), interval(e, scale=100)))
    title = "ROUGE-L against the references" if judge is None else "Win rate against the human target"
    tones = {name: tone_of(e) for name, e in found.items()}
    return Verdict(*_headline(first, tones), sentence, tuple(said), title, tuple(scores))


def _one_setting(facts: Mapping[str, Facts], means: Means) -> bool:
    """Whether all runs differ in their seed only."""
    return len(means) == 1 and len(means[0][0]) == len(facts)


def _said(e: Mapping[str, Any]) -> str:
    band, n = interval(e, scale=100, sign=True), e["n"]
    few = ", too few for more than a rough figure" if n < SMALL else ""
    parts = (f"95 % interval {band}" if band else "", p_value(e.get("p")), f"{n:,} prompts{few}")
    return f"{number(e['value'], scale=100, sign=True)} points ({', '.join(p for p in parts if p)})"


def _headline(first: str, tones: Mapping[str, str]) -> tuple[str, str]:
    """Tone and headline: whether any run is better or worse than the first."""
    better = [name for name, tone in tones.items() if tone == BETTER]
    worse = [name for name, tone in tones.items() if tone == WORSE]
    if not better and not worse:
        tone = SAME if SAME in tones.values() else UNKNOWN
        return tone, HEADLINES[tone]
    if not worse:
        return BETTER, f"{_and(better)} {'is' if len(better) == 1 else 'are'} better than {first}"
    if not better:
        return WORSE, f"{_and(worse)} {'is' if len(worse) == 1 else 'are'} worse than {first}"
    return BETTER, f"{_and(better)} better, {_and(worse)} worse than {first}"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _warnings(facts: Mapping[str, Facts], shared: Mapping[str, Example]) -> list[str]:
    found = [
        f"{name}: {len(f.test) - len(shared):,} of {len(f.test):,} test rows are not in every run"
        for name, f in facts.items()
        if len(f.test) > len(shared)
    ]
    described = [(f.metrics or {}).get("method", {}).get("judges", {}) for f in facts.values()]
    for judge in dict.fromkeys(j for d in described for j in d):
        settings = [_rule(d[judge]) for d in described if judge in d]
        if any(s != settings[0] for s in settings):
            found.append(f"judge {judge} is not the same in all runs: its win rates can't be compared")
    return found


def _rule(described: Mapping[str, Any]) -> dict[str, Any]:
    """What a judge is, without what it counted."""
    return {k: v for k, v in described.items() if not isinstance(v, int | float)}


def _results(facts: Mapping[str, Facts], means: Means) -> Table:
    """The students, and their means over seeds."""
    metrics = {name: f.metrics for name, f in facts.items() if f.metrics}
    columns = results_columns(metrics.values())
    rows = [(name, m["systems"][STUDENT]) for name, m in metrics.items()]
    for group, mean in means:
        rows.append((f"Mean of {len(group)} seeds: {', '.join(group)}", mean["systems"][STUDENT]))
    took = {name: duration(sum(s.get("seconds", 0) for s in f.stages.values())) for name, f in facts.items()}
    ends: list[tuple[str, Mapping[str, str]]] = [("Time", took)]
    if any(f.paid for f in facts.values()):
        ends.append(("Cost", {name: cost_of(f) for name, f in facts.items()}))
    body = tuple(
        (*metrics_row(harmless(name), figures, columns), *(Cell(by_name.get(name, DASH)) for _, by_name in ends))
        for name, figures in rows
    )
    return Table(
        "Results on the test set", ("Distilled student of", *columns.values(), *(title for title, _ in ends)), body
    )


def _others(facts: Mapping[str, Facts]) -> Table:
    """The systems that the runs compared their students with; what several runs have alike stands once."""
    metrics = {name: f.metrics for name, f in facts.items() if f.metrics}
    columns = results_columns(metrics.values())
    found: list[tuple[str, dict[str, Any], list[str]]] = []  # system, figures, the runs that have them
    for name, m in metrics.items():
        for system in (s for s in order_systems(m["systems"]) if s != STUDENT):
            figures = m["systems"][system]
            same = next((names for s, f, names in found if s == system and f == figures), None)
            if same is None:
                found.append((system, figures, [name]))
            else:
                same.append(name)
    rows = []
    for system, figures, names in found:
        where = "" if len(names) == len(facts) else f" of {', '.join(names)}"
        rows.append(metrics_row(f"{system_name(system)}{harmless(where)}", figures, columns))
    return Table("Other systems", ("System", *columns.values()), tuple(rows))


def _differences(gaps: Gaps) -> Table:
    measures = dict.fromkeys(m for by in gaps.values() for m in by)
    rows = tuple(
        (
            Cell(_measure_name(m)),
            *(difference_cell(by.get(m, {}), 1 if m == "words" else 100, judged=m != "words") for by in gaps.values()),
        )
        for m in sorted(measures, key=lambda m: (not m.startswith("win_rate"), m))
    )
    return Table("Differences from the first run", ("Metric", *gaps), rows)


def _measure_name(measure: str) -> str:
    kind, _, judge = measure.partition("/")
    return f"Win rate, {judge}" if judge else METRICS[kind]


def _settings(facts: Mapping[str, Facts]) -> Table | None:
    """The settings that are not the same in all runs."""
    flat = [dict(flatten(f.config or {})) for f in facts.values()]
    keys = dict.fromkeys(k for settings in flat for k in settings if k not in _PLACES)
    rows = tuple(
        (Cell(k), *(Cell(settings.get(k, DASH)) for settings in flat))
        for k in keys
        if len({settings.get(k) for settings in flat}) > 1
    )
    return Table("Settings that differ", ("Key", *facts), rows, words=True) if rows else None


def _win_plots(facts: Mapping[str, Facts]) -> list[Any]:
    first = next(iter(facts))
    judges = dict.fromkeys(j for f in facts.values() if f.metrics for j in f.metrics["systems"][STUDENT]["win_rate"])
    plots = []
    for i, judge in enumerate(judges):
        rows = [(n, f.metrics["systems"][STUDENT]["win_rate"].get(judge, {})) for n, f in facts.items() if f.metrics]
        plots.append(rates_plot(f"win-{i}", f"Win rate against the human target, judge {judge}", rows, mine=first))
    return [p for p in plots if p]


def _gap_plot(gaps: Gaps, judge: str | None) -> Any:
    title = "Difference from the first run, " + ("ROUGE-L" if judge is None else f"win rate by judge {judge}")
    return gap_plot("gap", title, [(name, by.get(_measure(judge), {})) for name, by in gaps.items()])


def _cases(facts: Mapping[str, Facts], shared: Mapping[str, Example]) -> Cases | None:
    systems: list[System] = []
    judged: dict[str, Any] = {}
    for name, f in facts.items():
        own = next((s for s in run_systems(f) if s.key == STUDENT), None)
        if own is not None:
            systems.append(System(name, redact(harmless(name)), own.texts, own.notes))
            judged[name] = [j for j in f.judgements if j.system == STUDENT and j.opponent == TARGET]
    return cases(shared, systems, judged) if systems else None
