"""Write what a person reads."""

from typing import Any

from plad.pipeline.context import Context, student_card
from plad.rundir.directory import write_text


def report(ctx: Context) -> dict[str, Any]:
    """Write the page, its Markdown twin, and the student's card with results."""
    from plad.report.page import render_report

    render_report(ctx.run.path)
    write_text(ctx.run / "student/README.md", student_card(ctx, ctx.run / "student"))
    return {}
