"""The report of a run: its page and the Markdown twin of the page."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from plad.config.root import Config
from plad.errors import Interrupted
from plad.report.card import card_text
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
from plad.rundir.atomic import write_text
from plad.rundir.manifest import read_manifest
from plad.text import redact

log = logging.getLogger("plad")


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
    """Write report/index.html and report/report.md of a run from its files alone, and the card of its student.

    Args:
        run_path: the run directory; what it lacks is left out with a sentence.

    Raises:
        RunDirError: it holds no run, or a file is damaged.
    """
    write_page(run_path, read_facts(run_path))
    if (run_path / "student/config.json").is_file():
        with not_fatal("the student's card", run_path):
            write_card(run_path)


def write_page(run_path: Path, facts: Facts) -> None:
    """Write report/index.html and report/report.md of a run."""
    report = build_report(facts)
    write_text(run_path / "report/index.html", page_html(facts, report))
    text = redact(markdown(report))
    write_text(run_path / "report/report.md", text.encode("utf-8", errors="replace").decode("utf-8"))


def write_card(run_path: Path, config: Config | None = None) -> None:
    """Write the model card beside the student of a run.

    Args:
        config: the run's. Default: as it stands in config.resolved.json.
    """
    student, metrics = run_path / "student", run_path / "eval/metrics.json"
    text = card_text(
        config or Config.model_validate_json((run_path / "config.resolved.json").read_bytes()),
        read_manifest(run_path),
        json.loads(metrics.read_bytes()) if metrics.is_file() else None,
        seq2seq=json.loads((student / "config.json").read_bytes()).get("is_encoder_decoder", False),
    )
    write_text(student / "README.md", text)


@contextlib.contextmanager
def not_fatal(what: str, run_path: Path) -> Iterator[None]:
    """A block that describes what is already saved: whatever goes wrong in it is a warning, and the run goes on."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as e:
        log.warning(
            "%s could not be written (%s: %s); the run itself is whole\n  -> plad report %s writes it again",
            what,
            type(e).__name__,
            e,
            run_path,
        )
