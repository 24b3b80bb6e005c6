"""Write what a person reads."""

from typing import Any

from plad.rundir import write_text
from plad.stages.context import Context, student_card


def report(ctx: Context) -> dict[str, Any]:
    """Write the page, its Markdown twin, and the student's card with results."""
    from plad.report.page import render_report

    render_report(ctx.run.path)
    write_text(ctx.run / "student/README.md", student_card(ctx, ctx.run / "student"))
    return {}
