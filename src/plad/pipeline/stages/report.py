"""Write what a person reads."""

from plad.pipeline.resources import Resources
from plad.pipeline.stage import Counts, Inputs
from plad.report.page import not_fatal, write_card, write_page
from plad.report.parts.run_facts import read_facts


def inputs(resources: Resources) -> Inputs:
    """Nothing but the stages before it."""
    return {}


def run(resources: Resources, inputs: Inputs) -> Counts:
    """Write the page, its Markdown twin, and the student's card with results."""
    run_dir = resources.run.path
    facts = read_facts(run_dir)
    write_page(run_dir, facts)
    with not_fatal("the student's card", run_dir):
        write_card(run_dir, facts, resources.config)
    return {}
