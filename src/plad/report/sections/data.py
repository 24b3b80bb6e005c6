"""From the rows of the training file to the pairs that the student learnt from."""

from plad.report.parts.blocks import BETTER, WORSE, Cell, ReportSection, Table, Text, blocks, explained
from plad.report.parts.estimates import count_cell, estimate_cell
from plad.report.parts.formatting import number
from plad.report.parts.run_facts import RunFacts

_ORDERS = {
    "teacher_better": "Teacher's answer better",
    "student_better": "Student's answer better",
    "ties": "Ties",
    "both_right": "of them both right",
    "both_wrong": "of them both wrong",
    "unjudged": "Unjudged",
}
_REASONS = {
    "identical": "both answers are the same",
    "empty": "an answer is empty",
    "truncated": "an answer was cut off",
    "too_long": "the prompt doesn't fit the context",
    "repeated": "the pair was there already",
    "not_selected": "other answers were selected",
    "unjudged": "the scorer could not judge",
    "tie": "the scorer finds both alike",
    "unsure": "the scores differ too little",
    "wrong": "the scorer prefers the student's answer",
}
_WRONG = Text(
    "A pseudo-pair is wrong where the student's answer is the better one:",
    "Share of pairs whose student's answer the scorer prefers, 95 % interval.",
    tone="",
)


def data(facts: RunFacts) -> ReportSection | None:
    """Rows and pairs by what became of them; None before the data is read."""
    shown = blocks(funnel_table(facts), scored_table(facts), explained(wrong_table(facts), _WRONG))
    return ReportSection("data", "From rows to pairs", "Data", shown) if shown else None


def funnel_table(facts: RunFacts) -> Table | None:
    """From the rows of the training file to the pairs the student learnt from."""
    data, pair = facts.data, facts.pair
    rows: list[tuple[str, int, int, str]] = []  # name, rows, of, tone
    if read := data.read:
        rows += [
            ("Training rows in the file", read, read, ""),
            ("Skipped as invalid", data.skipped.get("train", 0), read, WORSE),
            ("Left out: the prompt stands in another file", data.overlap.get("train", 0), read, WORSE),
            ("For fine-tuning", data.sft, read, ""),
            ("For distillation", data.distill, read, ""),
        ]
    if sampled := pair.candidates:
        dropped = [(_REASONS.get(k, k.replace("_", " ")), n) for k, n in pair.dropped.items()]
        rows += [
            ("Pairs sampled", sampled, sampled, ""),
            *((f"Dropped: {reason}", n, sampled, WORSE) for reason, n in dropped),
            ("Pairs kept", pair.pairs, sampled, BETTER),
            ("Of them swapped: the student's answer is chosen", pair.swapped, sampled, WORSE),
            ("Prompts left out of training: too long", facts.distill.too_long, sampled, WORSE),
        ]
    cells = tuple(
        (Cell(name), Cell(f"{n:,}", f"{number(n / of, scale=100)} %", tone, n / of))
        for name, n, of, tone in rows
        if n or tone != WORSE
    )
    return Table("From rows to pairs", ("Step", "Number"), cells, look="bars") if cells else None


def scored_table(facts: RunFacts) -> Table | None:
    """How the scorer of pairs ordered those it looked at."""
    pair = facts.pair
    if not pair.scored or pair.scorer is None:
        return None
    orders = {name: pair.scored[key] for key, name in _ORDERS.items() if key in pair.scored}
    counts = {"Pairs looked at": pair.scored["pairs"], **orders, "Swapped": pair.swapped}
    rows = tuple((Cell(name), count_cell(n)) for name, n in counts.items())
    return Table(f"Real preferences, by {pair.scorer.name}", ("Order", "Pairs"), rows)


def wrong_table(facts: RunFacts) -> Table | None:
    """Share of pseudo-pairs whose student's answer the scorer prefers, by the length of that answer."""
    wrong = facts.pair.wrong
    if wrong is None or not wrong.n:
        return None
    shares = {"All lengths": wrong, **{f"{words} words": share for words, share in wrong.by_words.items()}}
    rows = tuple(
        (Cell(name), estimate_cell(s, scale=100), *map(count_cell, (s.wrong, s.pairs, s.n)))
        for name, s in shares.items()
    )
    columns = ("Student's answer", "Wrong (%)", "Wrong pairs", "Judged pairs", "Prompts")
    return Table("Wrong pseudo-pairs", columns, rows)
