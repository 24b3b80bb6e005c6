"""A report as Markdown: the page's numbers, without its plots and examples."""

import re

from plad.report.parts.blocks import Cell, Report, Table
from plad.report.parts.formatting import harmless
from plad.text import redact

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def escape(text: str) -> str:
    """`text` on one line, in which nothing is Markdown or HTML, or a secret."""
    return _SPECIAL.sub(r"\\\1", " ".join(harmless(redact(text)).split()))


def _cell(cell: Cell) -> str:
    return f"{escape(cell.text)} ({escape(cell.detail)})" if cell.detail else escape(cell.text)


def table_text(table: Table) -> str:
    """A pipe table whose numbers stand to the right; a list of terms where the columns have no names."""
    if not table.columns:
        return "\n".join(f"- **{_cell(term)}**: {'; '.join(map(_cell, rest))}" for term, *rest in table.rows)
    rule = ["---"] + ["---" if table.words else "---:"] * (len(table.columns) - 1)
    lines = [[escape(c) for c in table.columns], rule, *([_cell(c) for c in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(report: Report) -> str:
    """The whole of report.md."""
    v = report.verdict
    parts = [f"# {escape(report.name)}", " ".join(filter(None, (f"**{escape(v.headline)}.**", escape(v.sentence))))]
    parts += map(escape, v.notes)
    parts += [f"- {escape(w)}" for w in report.warnings]
    for table, text in report.told():
        parts += [f"## {escape(table.title)}"] if table else []
        parts += [escape(text)] if text else []
        parts += [table_text(table)] if table else []
    return ("\n\n".join(parts) + "\n").encode("utf-8", errors="replace").decode("utf-8")
