"""The comparison page: the distilled students of several runs on the test prompts that all of them have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plad.errors import RunDirError
from plad.evaluate.deciding import rouge_of
from plad.evaluate.metrics import Difference, Metrics, SystemFigures
from plad.evaluate.seeds import prompt_values
from plad.evaluate.stats import SMALL, Bootstrap, paired_difference
from plad.judges.measure import most
from plad.records import STUDENT, Example
from plad.report.html import render
from plad.report.parts.blocks import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    Block,
    Cell,
    Plot,
    Report,
    ReportSection,
    Score,
    Table,
    Text,
    VerdictBox,
    blocks,
    group,
    plots,
)
from plad.report.parts.estimates import difference_cell, gap_plot, rates_plot, tone_of
from plad.report.parts.formatting import (
    DASH,
    METRICS,
    duration,
    flatten,
    harmless,
    interval,
    number,
    order_systems,
    p_value,
    system_name,
)
from plad.report.parts.measures import WORDS, estimate_of, judge_settings, measures_of, scale_of, system_cells
from plad.report.parts.run_facts import RunFacts, read_facts
from plad.report.parts.verdict import HEADLINES, verdict
from plad.report.sections.calibration import changes_table
from plad.report.sections.costs import cost_of
from plad.report.sections.examples import examples_section, shown_systems
from plad.report.sections.results import RATES
from plad.report.sections.seeds import Means, over_seeds, seed_means
from plad.rundir.atomic import write_text

RESAMPLES = 10_000
_PLACES = ("run.dir",)  # settings that say where a run stands and not what it is
_CALIBRATION = (
    "Of two texts of a prompt, how often the better one is the likelier one before and after distillation, and what "
    "distillation changed, paired over the prompts of each run. Runs whose fine-tuned students differ were measured on "
    "texts of their own: compare their changes, not their levels."
)
Values = Mapping[str, Mapping[str, float]]
"""Of one system: measure -> example id -> value."""


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
    compared = _Compared.read(runs)
    sections = (
        compared.results(),
        over_seeds(compared.means),
        _calibration(compared.metrics),
        compared.examples(),
        compared.settings(),
    )
    report = Report(
        kind="comparison",
        name=", ".join(runs),
        verdict=compared.verdict(),
        sections=tuple(filter(None, sections)),
        source="Made by plad from the files of these runs.",
    )
    write_text(out, render(report))


def _calibration(metrics: Mapping[str, Metrics]) -> ReportSection | None:
    table = changes_table(metrics)
    title = "Calibration: are better texts likelier?"
    return None if table is None else ReportSection("calibration", title, "Calibration", (Text(_CALIBRATION), table))


@dataclass(frozen=True)
class _Compared:
    """Runs side by side; the first is what the others are measured against.

    Attributes:
        facts, metrics: by name.
        shared: test rows that every run has, with the same prompt and references.
        gaps: run -> measure -> its student less the first run's.
        means: over runs that differ in their seed only.
    """

    facts: Mapping[str, RunFacts]
    metrics: Mapping[str, Metrics]
    shared: Mapping[str, Example]
    gaps: Mapping[str, Mapping[str, Difference]]
    means: Means

    @classmethod
    def read(cls, runs: Mapping[str, Path]) -> "_Compared":
        facts = {name: read_facts(path) for name, path in runs.items()}
        metrics = {name: f.metrics for name, f in facts.items() if f.metrics and STUDENT in f.metrics.systems}
        for name in facts:
            if name not in metrics:
                raise RunDirError("has no evaluated student", where=str(runs[name]), fix="plad evaluate CONFIG")
        first, *others = facts.values()
        shared = {i: e for i, e in first.test.items() if all(f.test.get(i) == e for f in others)}
        if not shared:
            raise RunDirError("the runs share no test row", where=", ".join(runs), fix="compare runs of one task")
        values = {name: prompt_values(path).get(STUDENT, {}) for name, path in runs.items()}
        return cls(facts, metrics, shared, _gaps(values, shared), seed_means(runs))

    @property
    def first(self) -> str:
        """Name of the run that the others are measured against."""
        return next(iter(self.facts))

    @property
    def students(self) -> dict[str, SystemFigures]:
        """The distilled student of every run."""
        return {name: m.systems[STUDENT] for name, m in self.metrics.items()}

    @property
    def judge(self) -> str | None:
        """The first judge of the first run that could compare most rows of every run with the target."""
        judged = [
            {j for j, rate in m.systems[STUDENT].win_rate.items() if most(rate.n, m.n)} for m in self.metrics.values()
        ]
        first = self.students[self.first].win_rate
        return next((j for j in first if all(j in js for js in judged)), None)

    @property
    def measure(self) -> str:
        """What decides."""
        return "rougeL" if self.judge is None else f"win_rate/{self.judge}"

    def verdict(self) -> VerdictBox:
        """How each run stands against the first one, by the judge that all runs have, else by ROUGE-L.

        Of runs that differ in their seed only: what distillation gained over all of them.
        """
        if len(self.means) == 1 and len(self.means[0][0]) == len(self.facts):
            return verdict(self.means[0][1])
        judge, measure = self.judge, self.measure
        gaps = {name: self.gaps.get(name, {}).get(measure, Difference()) for name in self.facts if name != self.first}
        notes = tuple(f"{name}: {_gap_in_words(e)}." for name, e in gaps.items() if e.value is not None)
        what = "ROUGE-L" if judge is None else f"win rate, judge {judge},"
        sentence = f"The difference in {what} from {self.first}:" if notes else "Nothing was measured in all runs."
        estimates = {name: estimate_of(student, measure) for name, student in self.students.items()}
        scores = tuple(
            Score(name, number(e.value, scale=100), interval(e, scale=100), name == self.first)
            for name, e in estimates.items()
            if e is not None and e.value is not None
        )
        title = rouge_of(self.metrics[self.first]).words if judge is None else "Win rate against the human target"
        tone, headline = _headline(self.first, {name: tone_of(e) for name, e in gaps.items()})
        return VerdictBox(tone, headline, sentence, notes, title, scores)

    def warnings(self) -> list[str]:
        """Test rows that are not in every run, and judges that are not the same."""
        warnings = [
            f"{name}: {len(f.test) - len(self.shared):,} of {len(f.test):,} test rows are not in every run"
            for name, f in self.facts.items()
            if len(f.test) > len(self.shared)
        ]
        described = [judge_settings(m) for m in self.metrics.values()]
        for judge in dict.fromkeys(j for d in described for j in d):
            first, *others = (d[judge] for d in described if judge in d)
            if any(settings != first for settings in others):
                warnings.append(f"judge {judge} is not the same in all runs: its win rates can't be compared")
        return warnings

    def results(self) -> ReportSection:
        """The students, the other systems, and the differences from the first run."""
        worth = (
            f"Each distilled student less that of {self.first}, prompt by prompt over the {len(self.shared):,} test "
            "prompts that all runs have: percentage points (words: words), 95 % interval, p-value. Coloured where the "
            "interval leaves out 0 and p is below 0.05; the p-values are not corrected for the number of runs."
        )
        others = "Teachers, fine-tuned students and other systems of these runs"
        shown: tuple[Block, ...] = blocks(
            Text(RATES),
            self._results_table(),
            group(others, self._others_table(), folded=True),
            plots([*self._win_plots(), self._gap_plot()]),
            group("What the differences are worth", Text(worth), self._differences_table()),
        )
        return ReportSection("results", "Results on the test set", "Results", shown, tuple(self.warnings()))

    def _results_table(self) -> Table:
        """The students, and their means over seeds."""
        measures = measures_of(self.metrics.values())
        rows = dict(self.students) | {
            f"Mean of {len(names)} seeds: {', '.join(names)}": mean.systems[STUDENT] for names, mean in self.means
        }
        took = {name: duration(sum(s.seconds for s in f.stages.values())) for name, f in self.facts.items()}
        ends: dict[str, Mapping[str, str]] = {"Time": took}
        if any(f.paid for f in self.facts.values()):
            ends["Cost"] = {name: cost_of(f) for name, f in self.facts.items()}
        body = tuple(
            (
                *system_cells(harmless(name), figures, measures),
                *(Cell(by_name.get(name, DASH)) for by_name in ends.values()),
            )
            for name, figures in rows.items()
        )
        columns = ("Distilled student of", *measures.values(), *ends)
        return Table("Results on the test set", columns, body, mine=harmless(self.first))

    def _others_table(self) -> Table:
        """The systems that the runs compared their students with; what several runs have alike stands once."""
        measures = measures_of(self.metrics.values())
        alike: list[tuple[str, SystemFigures, list[str]]] = []  # system, figures, the runs that have them
        for name, m in self.metrics.items():
            for system in (s for s in order_systems(m.systems) if s != STUDENT):
                figures = m.systems[system]
                same = next((names for s, f, names in alike if s == system and f == figures), None)
                if same is None:
                    alike.append((system, figures, [name]))
                else:
                    same.append(name)
        rows: list[tuple[Cell, ...]] = []
        for system, figures, names in alike:
            where = "" if len(names) == len(self.facts) else f" of {', '.join(names)}"
            rows.append(system_cells(f"{system_name(system)}{harmless(where)}", figures, measures))
        return Table("Other systems", ("System", *measures.values()), tuple(rows))

    def _differences_table(self) -> Table:
        measures = dict.fromkeys(m for by in self.gaps.values() for m in by)
        rows = tuple(
            (
                Cell(_measure_name(m)),
                *(difference_cell(by.get(m), scale_of(m), judged=m != WORDS) for by in self.gaps.values()),
            )
            for m in sorted(measures, key=lambda m: (not m.startswith("win_rate"), m))
        )
        return Table("Differences from the first run", ("Metric", *self.gaps), rows)

    def _win_plots(self) -> list[Plot | None]:
        judges = dict.fromkeys(j for student in self.students.values() for j in student.win_rate)
        return [
            rates_plot(
                f"win-{i}",
                f"Win rate against the human target, judge {judge}",
                [(name, student.win_rate.get(judge)) for name, student in self.students.items()],
                mine=self.first,
            )
            for i, judge in enumerate(judges)
        ]

    def _gap_plot(self) -> Plot | None:
        what = "ROUGE-L" if self.judge is None else f"win rate by judge {self.judge}"
        rows = [(name, by.get(self.measure)) for name, by in self.gaps.items()]
        return gap_plot("gap", f"Difference from the first run, {what}", rows)

    def examples(self) -> ReportSection | None:
        """The students' answers."""
        students = [
            replace(system, key=name, name=name)
            for name, f in self.facts.items()
            for system in shown_systems(f)
            if system.key == STUDENT
        ]
        return examples_section(self.shared, students)

    def settings(self) -> ReportSection:
        """The settings that are not the same in all runs."""
        flat = [dict(flatten(f.config)) for f in self.facts.values()]
        keys = dict.fromkeys(k for settings in flat for k in settings if k not in _PLACES)
        rows = tuple(
            (Cell(k), *(Cell(settings.get(k, DASH)) for settings in flat))
            for k in keys
            if len({settings.get(k) for settings in flat}) > 1
        )
        table = Table("Settings that differ", ("Key", *self.facts), rows, words=True)
        same = Text("Their settings are the same.", tone="")
        return ReportSection("settings", "What is different about the runs", "Settings", (table if rows else same,))


def _gaps(values: Mapping[str, Values], shared: Mapping[str, Example]) -> dict[str, dict[str, Difference]]:
    """Every run's student less the first run's, paired over the prompts that both were measured on."""
    (_, base), *others = values.items()
    gaps: dict[str, dict[str, Difference]] = {}
    for name, ours in others:
        for measure in base:
            ids = [i for i in shared if i in base[measure] and i in ours.get(measure, {})]
            if not ids:
                continue
            mine, theirs = (np.array([v[measure][i] for i in ids]) for v in (ours, base))
            bounds = None if measure == WORDS else (-1.0, 1.0)
            gaps.setdefault(name, {})[measure] = paired_difference(mine, theirs, Bootstrap(RESAMPLES), bounds=bounds)
    return gaps


def _gap_in_words(e: Difference) -> str:
    band = interval(e, scale=100, sign=True)
    few = ", too few for more than a rough figure" if e.n < SMALL else ""
    parts = (f"95 % interval {band}" if band else "", p_value(e.p), f"{e.n:,} prompts{few}")
    return f"{number(e.value, scale=100, sign=True)} points ({', '.join(p for p in parts if p)})"


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


def _measure_name(measure: str) -> str:
    kind, _, judge = measure.partition("/")
    return f"Win rate, {judge}" if judge else METRICS[kind]
