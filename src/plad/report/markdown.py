"""The report as Markdown: the page's numbers, without its figures and examples."""

import re
from collections.abc import Iterator

from plad.report.content import Report
from plad.report.sections.calibration import NOTE as CALIBRATION
from plad.report.sections.calibration import RELIABILITY
from plad.report.sections.methods import NOTE as METHODS
from plad.report.sections.tables import Cell, Table
from plad.report.wording import harmless

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")

EQUAL = "At equal length: the win rate in % that is left when answers are as long as their target."
AGREEMENT = "Verdicts on the same comparisons with the target. Kappa: 1 is full agreement, 0 what chance would give."
POWER = (
    "Prompts needed: so many show a difference of this size in 80 % of test sets, were it the true one. The last "
    "column is the difference that this many prompts show as often."
)
TEXTS = (
    "In %. Distinct-n: different n-grams of all; few mean that the answers resemble each other. Repeated: 4-grams said "
    "before in the same answer; many mean that it goes round in circles. Copied: words in runs of four or more taken "
    "from the prompt. Novel: bigrams the prompt has not; few, with much copied, mean quoting. Ended: answers that came "
    "to their end by themselves. Same as SFT: answers that distillation left as they were. Words: the median, in small "
    "print the middle nine tenths."
)


def escape(text: str) -> str:
    """`text` on one line, in which nothing is Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(harmless(text).split()))


def _cell(cell: Cell) -> str:
    return f"{escape(cell.text)} ({escape(cell.detail)})" if cell.detail else escape(cell.text)


def table_text(table: Table) -> str:
    """A pipe table; numbers stand to the right."""
    rule = ["---"] + ["---" if table.words else "---:"] * (len(table.columns) - 1)
    lines = [[escape(c) for c in table.columns], rule, *([_cell(c) for c in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sections(r: Report) -> Iterator[tuple[str, Table | None, str]]:
    """Title, table and what is said of it, in the order of the page."""
    values = "Win rates and ROUGE in %, in brackets the 95 % interval."
    yield "Results on the test set", r.results, values
    yield "Methods side by side", r.methods, METHODS
    yield (r.method_costs.title if r.method_costs else ""), r.method_costs, ""
    yield "Paired differences", r.differences, "Percentage points (words: words), 95 % interval and p-value."
    yield "Gain by length", r.by_length, "Points of win rate, by the words of the distilled student's answer."
    yield "How many prompts it takes", r.power, POWER
    yield "What the answers are made of", r.texts, TEXTS
    yield "Calibration of likelihoods", r.calibration, " ".join((*r.calibration_said, CALIBRATION))
    yield "Confidence and how often it is right", r.reliability, RELIABILITY
    yield "Teacher against SFT student, on the distillation prompts", r.teacher_student, "95 % interval."
    yield "Candidates for the objective", r.candidates, "The one with the best validation win rate is kept."
    yield "Rounds", r.rounds, r.rounds_said
    yield "From rows to pairs", r.funnel, ""
    yield (r.scored.title if r.scored else ""), r.scored, ""
    yield "Wrong pseudo-pairs", r.wrong, "Share of pairs whose student's answer the scorer prefers, 95 % interval."
    yield "Time and cost by stage", r.stages, ""
    yield "What providers were paid for", r.paid, r.paid_said
    yield "What each stage counted", r.counts, ""
    yield "The judges", r.judges, ""
    yield "Comparisons with the human target", r.judged, EQUAL
    yield "How far the judges agree", r.agreement, AGREEMENT
    yield "Settings", r.settings, ""
    yield "Versions", r.versions, ""


def markdown(r: Report) -> str:
    """The whole of report.md."""
    parts = [f"# {escape(r.name)}", f"**{escape(r.verdict.headline)}.** {escape(r.verdict.sentence)}"]
    parts += [escape(n) for n in r.verdict.notes]
    parts += [f"- {escape(w)}" for w in r.warnings]
    for title, table, note in sections(r):
        if table is not None:
            parts += [f"## {title}", *([note] if note else []), table_text(table)]
    if r.method:
        parts.append("## How the numbers are made")
        parts.append("\n".join(f"- **{escape(k)}**: {escape(v)}" for k, v in r.method))
    if r.missing:
        parts.append(f"Left out, because the run has no {', '.join(escape(m) for m in r.missing)}.")
    return "\n\n".join(parts) + "\n"
