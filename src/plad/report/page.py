"""The report of a run: its page and the Markdown twin of the page."""

from pathlib import Path

from plad.report.content import Report, build_report
from plad.report.facts import Facts, read_facts
from plad.report.html import render
from plad.report.markdown import AGREEMENT, EQUAL, METHODS, POWER, TEXTS, markdown
from plad.report.plots.curves import rounds_plot, training_plots
from plad.report.plots.figures import calibration_plots, gain_plots, length_plot, time_plot, win_rate_plots
from plad.report.sections.calibration import NOTE as CALIBRATION
from plad.report.sections.calibration import RELIABILITY
from plad.report.sections.cases import run_cases
from plad.report.sections.choices import kept_curves
from plad.report.sections.methods import lead_plots
from plad.report.wording import NAMES
from plad.rundir.directory import write_text
from plad.text import redact


def page_html(facts: Facts, report: Report) -> str:
    """The page of a run."""
    m = facts.metrics
    return render(
        "template.html",
        run_cases(facts),
        r=report,
        wins=win_rate_plots(m) if m else [],
        gains=gain_plots(m) if m else [],
        length=length_plot(m) if m else None,
        leads=lead_plots(m) if m else [],
        calibration=calibration_plots(m) if m else [],
        time=time_plot(facts.stages),
        curves=training_plots(kept_curves(facts)),
        by_round=rounds_plot(facts.counts("distill").get("rounds", ())),
        names=NAMES,
        agreement=AGREEMENT,
        calibration_note=CALIBRATION,
        reliability_note=RELIABILITY,
        equal=EQUAL,
        methods_note=METHODS,
        power=POWER,
        texts=TEXTS,
    )


def render_report(run_path: Path) -> None:
    """Write report/index.html and report/report.md of a run from its files alone.

    Args:
        run_path: the run directory; what it lacks is left out with a sentence.

    Raises:
        RunDirError: it holds no run, or a file is damaged.
    """
    facts = read_facts(run_path)
    report = build_report(facts)
    write_text(run_path / "report/index.html", page_html(facts, report))
    text = redact(markdown(report))
    write_text(run_path / "report/report.md", text.encode("utf-8", errors="replace").decode("utf-8"))
