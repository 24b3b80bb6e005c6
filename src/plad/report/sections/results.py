"""Results on the test set: what the judges and ROUGE say of every system, and what the differences are worth."""

from plad.evaluate.deciding import above_even
from plad.evaluate.metrics import Difference, Length, Metrics
from plad.evaluate.stats import SMALL
from plad.records import STUDENT, STUDENT_SFT
from plad.report.parts.blocks import Cell, Plot, ReportSection, Table, Text, blocks, explained, group, plots
from plad.report.parts.drawing import SOFT, A, Axes
from plad.report.parts.estimates import (
    ROW,
    by_judge,
    count_cell,
    difference_cell,
    estimate_cell,
    gap_plot,
    name_rows,
    rates_plot,
    share_cell,
)
from plad.report.parts.formatting import DASH, METRICS, bin_name, number, order_systems, p_value, span, system_name
from plad.report.parts.measures import TEXT_METRICS, WORDS, judges_of, measures_of, scale_of, system_cells
from plad.report.parts.run_facts import RunFacts
from plad.report.sections.methods import methods

RATES = (
    "Win rate: how often a judge prefers the answer to the human target, ties counting half. Win rates and ROUGE in %; "
    "small print: 95 % interval."
)
_NO_RATES = "ROUGE in %; small print: 95 % interval."
_POWER = (
    "Prompts needed: so many show a difference of this size in 80 % of test sets, were it the true one. The last "
    "column is the difference that this many prompts show as often."
)
_TEXTS = (
    "In %. Distinct-n: different n-grams of all; few mean that the answers resemble each other. Repeated: 4-grams said "
    "before in the same answer; many mean that it goes round in circles. Copied: words in runs of four or more taken "
    "from the prompt. Novel: bigrams the prompt has not; few, with much copied, mean quoting. Ended: answers that came "
    "to their end by themselves. Same as SFT: answers that distillation left as they were. Words: the median, in small "
    "print the middle nine tenths."
)
_WORTH = Text(
    "Percentage points (words: words), prompt by prompt. Coloured where the interval leaves out 0 and p is below 0.05.",
    "Percentage points (words: words), 95 % interval and p-value.",
)
_AGAINST = Text(
    "How often one system's answer is better than another's, in %, ties half; where a judge can't compare most rows "
    "with the human target. 50 is a draw; p is of the sign test, of compared methods corrected for their number (Holm)."
)
_BY_LENGTH = Text("", "Points of win rate over the SFT student, by the words of the answer.")


def results(facts: RunFacts) -> ReportSection | None:
    """Every system's figures, the differences between systems, and what the answers are made of."""
    m = facts.metrics
    if m is None:
        return None
    judged = any(rate.n for system in m.systems.values() for rate in system.win_rate.values())
    about = Text(
        f"{RATES if judged else _NO_RATES} Figures from fewer than {SMALL} prompts carry their n.",
        f"{'Win rates and ' if judged else ''}ROUGE in %, in brackets the 95 % interval.",
    )
    wins, length = win_rate_plots(m), length_plot(m)
    folded = (
        ("How many prompts it takes to see a difference", power_table(m), Text(_POWER)),
        ("What the answers are made of", texts_table(m), Text(_TEXTS)),
    )
    shown = blocks(
        explained(results_table(m), about),
        plots([*wins, *gain_plots(m), length]) if wins or length else None,
        methods(m),
        group("Systems against each other", explained(against_table(m), _AGAINST)),
        group("What the differences are worth", explained(differences_table(m), _WORTH)),
        group(
            "Gain by length", explained(by_length_table(m), _BY_LENGTH), plots(gain_plots(m, methods=True)), folded=True
        ),
        [g for title, table, text in folded if (g := group(title, explained(table, text), folded=True))],
    )
    return ReportSection("results", "Results on the test set", "Results", shown, m.warnings)


def results_table(metrics: Metrics) -> Table:
    """System by metric, each with its interval."""
    measures = measures_of([metrics])
    rows = tuple(system_cells(system_name(s), metrics.systems[s], measures) for s in order_systems(metrics.systems))
    return Table("Results on the test set", ("System", *measures.values()), rows, mine=system_name(STUDENT))


def win_rate_plots(metrics: Metrics) -> list[Plot]:
    """One plot a judge: the win rate of each system against the human target."""
    drawn = [
        rates_plot(
            f"win-{i}",
            f"Win rate against the human target, judge {judge}",
            [(system_name(s), metrics.systems[s].win_rate.get(judge)) for s in order_systems(metrics.systems)],
            mine=system_name(STUDENT),
        )
        for i, judge in enumerate(judges_of(metrics))
    ]
    return [plot for plot in drawn if plot]


def differences_table(metrics: Metrics) -> Table | None:
    """Paired differences: metric by pair of systems; those of compared methods have a table of their own."""
    methods = set(metrics.comparison.methods) if metrics.comparison else set[str]()
    pairs = {pair: e for pair, e in metrics.differences.items() if not methods & set(pair.split(" - "))}
    rows: dict[str, dict[str, Cell]] = {}
    for pair, difference in pairs.items():
        for judge, rate in difference.win_rate.items():
            rows.setdefault(f"Win rate, {judge}", {})[pair] = difference_cell(rate, 100)
            equal = difference_cell(rate.length_controlled, 100)
            rows.setdefault(f"Win rate at equal length, {judge}", {})[pair] = equal
        for metric in TEXT_METRICS:
            cell = difference_cell(difference.metric(metric), scale_of(metric), judged=metric != WORDS)
            rows.setdefault(METRICS[metric], {})[pair] = cell
    body = tuple(
        (Cell(name), *(cells.get(pair, Cell(DASH)) for pair in pairs))
        for name, cells in rows.items()
        if any(cell.text != DASH for cell in cells.values())
    )
    return Table("Paired differences", ("Metric", *map(_pair_name, pairs)), body) if metrics.differences else None


def against_table(metrics: Metrics) -> Table | None:
    """How often one system beats another, where systems were compared with each other."""
    judges = dict.fromkeys(judge for d in metrics.differences.values() for judge in d.against)
    rows = tuple(
        (
            Cell(by_judge(" against ".join(map(system_name, pair.split(" - "))), judge, judges)),
            estimate_cell(e, scale=100),
            *map(count_cell, (e.n, e.wins, e.ties, e.losses)),
            estimate_cell(e.length_controlled, scale=100),
            Cell(p_value(e.p if e.p_holm is None else e.p_holm).removeprefix("p = ").removeprefix("p ") or DASH),
        )
        for pair, difference in metrics.differences.items()
        for judge, e in difference.against.items()
    )
    columns = ("Systems", "Won (%)", "Prompts", "Wins", "Ties", "Losses", "At equal length", "p")
    return Table("Systems against each other", columns, rows) if rows else None


def _pair_name(pair: str) -> str:
    return " − ".join(system_name(s) for s in pair.split(" - "))


def by_length_table(metrics: Metrics) -> Table | None:
    """What the student and every compared method gained, by the words of its own answer.

    Source: PLaD, Figure 3.
    """
    rows = tuple(
        (
            Cell(by_judge(_of_method(system, bin_name(b), metrics), judge, gains)),
            count_cell(b.n),
            difference_cell(b, 100),
        )
        for system, gains in _gains(metrics).items()
        for judge, gain in gains.items()
        if len(gain.by_length) > 1
        for b in gain.by_length
    )
    return Table("Gain by length", ("The answer", "Prompts", "Points gained"), rows) if rows else None


def _of_method(system: str, text: str, metrics: Metrics) -> str:
    """The text, with the method before it where there are several."""
    return f"{system_name(system)}, {text}" if len(_gains(metrics)) > 1 else text


def gain_plots(metrics: Metrics, *, methods: bool = False) -> list[Plot]:
    """One plot a judge: what distillation gained by length of its answer; with `methods`, what the others did.

    Source: PLaD, Figure 3.
    """
    drawn = [
        gap_plot(
            f"gain-{n}-{i}" if methods else f"gain-{i}",
            f"Gain by length, {system_name(system)}, judge {judge}"
            if methods
            else f"Gain by length of the distilled student's answer, judge {judge}",
            [(f"{bin_name(b)} (n = {b.n})", b) for b in gain.by_length],
        )
        for n, (system, gains) in enumerate(_gains(metrics).items())
        if methods == (system != STUDENT)
        for i, (judge, gain) in enumerate(gains.items())
        if sum(b.value is not None for b in gain.by_length) > 1
    ]
    return [plot for plot in drawn if plot]


def _gains(metrics: Metrics) -> dict[str, dict[str, Difference]]:
    """What the student and every method it is compared with gained over the fine-tuned student, by judge."""
    methods = metrics.comparison.methods if metrics.comparison else ()
    found = {system: metrics.difference(system, STUDENT_SFT) for system in (STUDENT, *methods)}
    return {system: difference.win_rate for system, difference in found.items() if difference}


def power_table(metrics: Metrics) -> Table | None:
    """How many prompts would show each difference, and which difference these prompts show."""
    rows = tuple(
        (
            Cell(by_judge(_pair_name(pair), judge, difference.win_rate)),
            difference_cell(e, 100),
            count_cell(e.n),
            count_cell(e.power.prompts_needed),
            Cell(number(e.power.detectable, scale=100)),
        )
        for pair, difference in metrics.differences.items()
        for judge, e in (difference.win_rate | {j: above_even(d) for j, d in difference.against.items()}).items()
        if e.power.detectable is not None
    )
    columns = ("Comparison", "Difference", "Prompts", "Prompts needed", "Points these prompts show")
    return Table("How many prompts it takes", columns, rows) if rows else None


_OF_TEXTS = ("Distinct-1", "Distinct-2", "Distinct-3", "Repeated", "Copied", "Novel", "Ended", "Same as SFT", "Words")


def texts_table(metrics: Metrics) -> Table | None:
    """What the answers are made of: variety, repetition, copying, endings."""
    systems = metrics.systems
    if not any(s.distinct for s in systems.values()):
        return None
    rows = tuple(
        (
            Cell(system_name(name)),
            *(share_cell(s.distinct.get(n)) for n in ("1", "2", "3")),
            *(estimate_cell(e, scale=100) for e in (s.repetition, s.copied, s.novel)),
            share_cell(s.ended),
            share_cell(s.same_as_sft),
            _length_cell(s.length or Length()),
        )
        for name, s in ((name, systems[name]) for name in order_systems(systems))
    )
    return Table("What the answers are made of", ("System", *_OF_TEXTS), rows)


def _length_cell(length: Length) -> Cell:
    """Median number of words, and the middle nine tenths."""
    low, median, high = (length.quantiles.get(k) for k in ("p5", "p50", "p95"))
    return Cell(DASH) if median is None else Cell(number(median, digits=0), span(low, high, digits=0))


def length_plot(metrics: Metrics) -> Plot | None:
    """How long the answers of each system are: the middle half, the middle nine tenths, the median."""
    lengths = {system_name(s): metrics.systems[s].length for s in order_systems(metrics.systems)}
    rows = [(name, {k: q or 0.0 for k, q in e.quantiles.items()}) for name, e in lengths.items() if e and e.quantiles]
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        for y, (name, q) in enumerate(reversed(rows)):
            colour = A if name == system_name(STUDENT) else SOFT
            axes.plot([q["p5"], q["p95"]], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([q["p25"], q["p75"]], [y, y], color=colour, linewidth=8, alpha=0.5, solid_capstyle="butt")
            axes.plot([q["p50"]], [y], "o", color=colour, markersize=7)
            axes.text(q["p50"], y + 0.24, number(q["p50"], digits=0), ha="center", va="bottom", fontsize=9)
        name_rows(axes, [name for name, _ in rows])
        axes.set_xlim(left=0)
        axes.margins(x=0.08)
        axes.set_xlabel("words (dot: median, bar: half, line: 90 %)")

    alt = "; ".join(
        f"{name}: median {q['p50']:g}, half from {q['p25']:g} to {q['p75']:g}, nine tenths from {q['p5']:g} to "
        f"{q['p95']:g} words"
        for name, q in rows
    )
    return Plot("words", "Length of the answers", alt, 0.9 + ROW * len(rows), draw)
