"""Write what a person reads."""

from typing import Any

from plad.pipeline.context import Context


def report(ctx: Context) -> dict[str, Any]:
    """Write the page, its Markdown twin, and the student's card with results."""
    from plad.report.page import not_fatal, write_card, write_page
    from plad.report.parts.run_facts import read_facts

    facts = read_facts(ctx.run.path)
    with not_fatal("the report", ctx.run.path):
        write_page(ctx.run.path, facts)
    with not_fatal("the student's card", ctx.run.path):
        write_card(ctx.run.path, facts, ctx.config)
    return {}
