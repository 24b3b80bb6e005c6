"""Write what a person reads."""

from typing import Any

from plad.pipeline.context import Context


def report(ctx: Context) -> dict[str, Any]:
    """Write the page, its Markdown twin, and the student's card with results."""
    from plad.report.facts import read_facts
    from plad.report.page import not_fatal, write_card, write_page

    facts = read_facts(ctx.run.path)
    with not_fatal("the report", ctx.run.path):
        write_page(ctx.run.path, facts)
    with not_fatal("the student's card", ctx.run.path):
        write_card(ctx.run.path, ctx.config)
    return {}
