"""Runs that differ only in their seed, taken together: means with intervals over seeds and prompts."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.data.formats import read_examples_jsonl
from plad.evaluate.files import read_answers, read_judgements
from plad.evaluate.metrics import Difference, HeadToHead, Metrics, SystemDifference, SystemFigures
from plad.evaluate.stats import LEVEL
from plad.evaluate.texts import count_words
from plad.evaluate.winrate import POINTS
from plad.judges.rouge import Rouge
from plad.records import TARGET, Verdict
from plad.rundir.reading import reading

METHOD = {
    "seeds": "mean over seeds and prompts; interval from a two-way random-effects analysis of variance (seeds crossed "
    "with prompts), Satterthwaite's degrees of freedom, cut at the ends of the scale: it holds for further seeds and "
    "further prompts; p of a difference from the same t statistic",
}

COUNTS = ("wins", "ties", "losses", "unjudged")
SHARE, GAP = (0.0, 1.0), (-1.0, 1.0)  # scales of a share and of a difference of two
_Table = dict[str, dict[str, dict[str, float]]]  # system -> measure -> example id -> value


def over_seeds(values: NDArray[np.float64], *, bounds: tuple[float, float] | None = None) -> Difference:
    """The mean over S seeds and P prompts, with an interval for new seeds and new prompts.

    Var(mean) = (MS_seeds + MS_prompts - MS_rest) / (S P), from the mean squares of the two-way layout; a mean square
    below the rest's counts as equal to it (no effect of its own).

    Args:
        values: [S, P], S >= 2, finite; row s holds the prompts' values under seed s.
        bounds: ends of the scale, where the interval is cut off; None where it has none.

    Returns:
        `p` is two-sided, of "the mean is 0"; low, high and p are None where the values don't vary, or there is one
        prompt.

    Source: Brennan, "Generalizability Theory", 2001, p x i design; Satterthwaite, 1946.
    """
    seeds, prompts = values.shape
    if prompts == 0:
        return Difference(value=None, low=None, high=None, p=None, n=0, seeds=seeds, sd_seeds=None)
    mean, of_seeds, of_prompts = values.mean(), values.mean(1), values.mean(0)
    sd_seeds, ms_seeds = float(of_seeds.std(ddof=1)), prompts * of_seeds.var(ddof=1)
    unsure = Difference(value=float(mean), low=None, high=None, p=None, n=prompts, seeds=seeds, sd_seeds=sd_seeds)
    if prompts == 1:
        return unsure
    ms_prompts = seeds * of_prompts.var(ddof=1)
    rest = values - of_seeds[:, None] - of_prompts + mean
    dof = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)], dtype=np.float64)
    ms_rest = float((rest**2).sum() / dof[2])
    parts = np.array([max(ms_seeds, ms_rest), max(ms_prompts, ms_rest), -ms_rest])
    total = parts.sum()
    if total <= 1e-18:
        return unsure
    from scipy import stats  # takes half a second to import

    t: Any = stats.t  # scipy has no types

    freedom, error = total**2 / (parts**2 / dof).sum(), math.sqrt(total / values.size)
    half = t.ppf((1 + LEVEL) / 2, freedom) * error
    low, high = np.clip((mean - half, mean + half), *(bounds or (-np.inf, np.inf)))
    p = 2 * t.sf(abs(mean) / error, freedom)
    return unsure.model_copy(update={"low": float(low), "high": float(high), "p": float(p)})


def seed_groups(runs: Mapping[str, Path]) -> list[list[str]]:
    """Names of runs whose settings differ only in seed and place; groups of one are left out.

    A seed that occurs twice tells nothing new: the first of its runs counts.
    """
    groups: dict[str, dict[Any, str]] = {}  # settings -> seed -> name
    for name, run in runs.items():
        file = run / "config.resolved.json"
        if not file.exists():
            continue
        with reading(file, "plad run CONFIG writes it again"):
            config = json.loads(file.read_text(encoding="utf-8"))
            seed = config["run"].get("seed")
            config["run"] = {k: v for k, v in config["run"].items() if k not in ("seed", "dir")}
        groups.setdefault(json.dumps(config, sort_keys=True), {}).setdefault(seed, name)
    return [list(names.values()) for names in groups.values() if len(names) > 1]


def mean_metrics(runs: Mapping[str, Path]) -> Metrics:
    """The metrics as means over several seeds: systems and their differences.

    Args:
        runs: at least two evaluated runs that differ in their seed; prompts that all of them judged count.
    """
    tables = [prompt_values(run) for run in runs.values()]
    metrics = [Metrics.read(run) for run in runs.values()]
    fights = [_duels(run) for run in runs.values()]
    systems = {s: _mean_system(s, tables, [m.systems[s] for m in metrics]) for s in _common(tables)}
    differences: dict[str, SystemDifference] = {}
    for pair in metrics[0].differences:
        a, b = pair.split(" - ")
        if a in systems and b in systems:
            ours, theirs = _stack(tables, a, b), _stack(tables, b, a)
            means = _means({m: ours[m] - theirs[m] for m in ours if m in theirs}, GAP)
            judges = [j for j in metrics[0].differences[pair].against if all((a, b, j) in f for f in fights)]
            against = {j: _mean_duel([f[a, b, j] for f in fights]) for j in judges}
            differences[pair] = SystemDifference.model_validate({**means, **({"against": against} if against else {})})
    return Metrics(
        version=metrics[0].version,
        n=min(m.n for m in metrics),
        runs=tuple(runs),
        systems=systems,
        differences=differences,
        method={**METHOD, "judges": {judge: {"type": facts.type} for judge, facts in metrics[0].judges.items()}},
        warnings=(f"{len(runs)} seeds: an interval over so few is wide",) if len(runs) < 5 else (),
    )


def _common(tables: Sequence[_Table]) -> list[str]:
    """The systems of every run."""
    return [s for s in tables[0] if all(s in t for t in tables)]


def _mean_system(system: str, tables: Sequence[_Table], each: Sequence[SystemFigures]) -> SystemFigures:
    means = _means(_stack(tables, system), SHARE)
    rates = {
        judge: {**rate, **{k: sum(getattr(s.win_rate[judge], k) for s in each) for k in COUNTS}}
        for judge, rate in means["win_rate"].items()
    }
    shares = {k: [getattr(s, k) for s in each] for k in ("truncated", "empty")}
    known = {k: sum(s) / len(s) for k, s in shares.items() if None not in s}
    return SystemFigures.model_validate({**means, "win_rate": rates, **known})


def _mean_duel(verdicts: Sequence[Mapping[str, Verdict]]) -> HeadToHead:
    """How often one system beats another; `p` is of "as often as not"."""
    common = [i for i in verdicts[0] if all(i in v for v in verdicts)]
    points = np.array([[POINTS[v[i]] for i in common] for v in verdicts], dtype=np.float64).reshape(len(verdicts), -1)
    lead = over_seeds(points - 0.5, bounds=(-0.5, 0.5))
    ends = {k: None if (end := getattr(lead, k)) is None else end + 0.5 for k in ("value", "low", "high")}
    given = [verdict for v in verdicts for verdict in v.values()]
    counted = {"wins": Verdict.WIN, "ties": Verdict.TIE, "losses": Verdict.LOSS}
    return HeadToHead.model_validate({**lead.to_json(), **ends, **{k: given.count(v) for k, v in counted.items()}})


def _means(stacked: Mapping[str, NDArray[np.float64]], bounds: tuple[float, float]) -> dict[str, Any]:
    """`win_rate` by judge, and the other metrics; measures are named `win_rate/JUDGE` or as the metric."""
    rates: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for measure, values in stacked.items():
        kind, _, judge = measure.partition("/")
        mean = over_seeds(values, bounds=None if kind == "words" else bounds).to_json()
        if bounds is SHARE:  # that a share is not 0 says nothing
            del mean["p"]
        (rates if judge else metrics)[judge or kind] = mean
    return {"win_rate": rates, **metrics}


def _stack(tables: Sequence[_Table], system: str, paired: str | None = None) -> dict[str, NDArray[np.float64]]:
    """measure -> [S, P] over the prompts that every run has, of `paired` too."""
    found: dict[str, NDArray[np.float64]] = {}
    for measure in tables[0][system]:
        rows = [t[system].get(measure, {}) for t in tables]
        others = [] if paired is None else [t[paired].get(measure, {}) for t in tables]
        common = [i for i in rows[0] if all(i in r for r in (*rows, *others))]
        found[measure] = np.array([[r[i] for i in common] for r in rows], dtype=np.float64).reshape(len(rows), -1)
    return found


def _duels(run: Path) -> dict[tuple[str, str, str], dict[str, Verdict]]:
    """Verdicts of one system against another, by both and the judge, then by prompt."""
    found: dict[tuple[str, str, str], dict[str, Verdict]] = {}
    for j in read_judgements(run / "eval/judgements.parquet"):
        if j.opponent != TARGET:
            found.setdefault((j.system, j.opponent, j.judge), {})[j.example_id] = j.verdict
    return found


def prompt_values(run: Path) -> _Table:
    """Every value of a run's evaluation, by system, measure and prompt; measures as in `_measures`."""
    table: _Table = {}
    for j in read_judgements(run / "eval/judgements.parquet"):
        if j.opponent == TARGET:
            table.setdefault(j.system, {}).setdefault(f"win_rate/{j.judge}", {})[j.example_id] = POINTS[j.verdict]
    scorer = Rouge(stemmer=bool(Metrics.read(run).method["stemmer"]))
    references = {e.id: e.references for e in read_examples_jsonl(run / "data/test.jsonl")}
    for row in read_answers(run / "eval/answers.jsonl"):
        for system, answer in row["answers"].items():
            values = table.setdefault(system, {})
            values.setdefault("words", {})[row["id"]] = float(count_words(answer.get("text", "")))
            best = scorer.best(answer.get("text", ""), references[row["id"]])
            for metric, value in (best or {}).items():
                values.setdefault(metric, {})[row["id"]] = value
    return table
