"""The report page: everything in one HTML file that needs no network and runs no script."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from plad.report.content import Report, build_report
from plad.report.facts import Facts, read_facts
from plad.report.figures import Plot, length_plot, training_plots, win_rate_plots
from plad.report.markdown import markdown
from plad.report.samples import RULE, Sample, samples
from plad.report.wording import NAMES, harmless
from plad.rundir import redact, write_text


def page_html(facts: Facts, report: Report) -> str:
    """The page. All text that isn't the template's own is escaped; figures are built from numbers and names only."""
    m = facts.metrics
    wins = win_rate_plots(m) if m else []
    length = length_plot(m) if m else None
    curves: list[Plot] = training_plots(facts.curves)
    cards: list[Sample] = samples(facts)
    environment = Environment(
        loader=PackageLoader("plad.report", "."),
        autoescape=select_autoescape(["html"], default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=lambda value: harmless(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("template.html")
    return template.render(r=report, wins=wins, length=length, curves=curves, samples=cards, rule=RULE, names=NAMES)


def render_report(run_path: Path) -> None:
    """Write report/index.html and report/report.md of a run from its files alone.

    Args:
        run_path: the run directory; what it lacks is left out with a sentence.

    Raises:
        RunDirError: it holds no run, or a file is damaged.
    """
    facts = read_facts(run_path)
    report = build_report(facts)
    write_text(run_path / "report/index.html", _encodable(redact(page_html(facts, report))))
    write_text(run_path / "report/report.md", _encodable(redact(markdown(report))))


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which no encoding holds."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
