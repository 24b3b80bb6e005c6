"""The report of a run, and the card of its student, as files."""

import contextlib
import json
import logging
from collections.abc import Generator
from pathlib import Path

from plad.config.root import Config
from plad.report.card import card_text
from plad.report.html import render
from plad.report.markdown import markdown
from plad.report.parts.blocks import Report, ReportSection
from plad.report.parts.formatting import harmless
from plad.report.parts.run_facts import CONFIG, RunFacts, read_facts
from plad.report.parts.verdict import verdict
from plad.report.sections import SECTIONS
from plad.rundir.atomic import write_text

log = logging.getLogger("plad")

_SOURCE = (
    "Made by plad from the files of this run. The same figures stand in report.md, every judgement in "
    "eval/judgements.parquet, every answer in eval/answers.jsonl."
)


def build_report(facts: RunFacts) -> Report:
    """What the report of a run says; a section that fails is left out with a warning."""
    shown: list[ReportSection] = []
    for section in SECTIONS:
        try:
            shown += filter(None, [section(facts)])
        except Exception as e:
            failed = f"the section {section.__name__!r} could not be made ({type(e).__name__}: {e})"
            log.warning("%s; everything else is whole", failed)
            shown.append(ReportSection(section.__name__, section.__name__.capitalize(), "", (), (failed,)))
    return Report(
        kind="report",
        name=harmless(facts.name),
        verdict=verdict(facts.metrics),
        sections=tuple(shown),
        finished=max((stage.finished for stage in facts.stages.values()), default=""),
        source=_SOURCE,
    )


def render_report(run: Path) -> None:
    """Write report/index.html and report/report.md of a run from its files alone; and a student's card that is gone.

    Args:
        run: the run directory; what it lacks is left out with a sentence.

    Raises:
        RunDirError: it holds no run, or a file is damaged.
    """
    facts = read_facts(run)
    write_page(run, facts)
    student = run / "student"
    if all(file.is_file() for file in (student / "config.json", run / CONFIG)) and not (student / "README.md").exists():
        with not_fatal("the student's card", run):
            write_card(run, facts)


def write_page(run: Path, facts: RunFacts) -> None:
    """Write report/index.html and report/report.md of a run."""
    report = build_report(facts)
    write_text(run / "report/index.html", render(report))
    write_text(run / "report/report.md", markdown(report))


def write_card(run: Path, facts: RunFacts, config: Config | None = None) -> None:
    """Write the model card beside the student of a run; one that stands there goes first, and is never out of date.

    Args:
        config: the run's. Default: as it stands in config.resolved.json.
    """
    student = run / "student"
    config = config or Config.model_validate_json((run / CONFIG).read_bytes())
    seq2seq = json.loads((student / "config.json").read_bytes()).get("is_encoder_decoder", False)
    (student / "README.md").unlink(missing_ok=True)
    write_text(student / "README.md", card_text(config, facts, seq2seq=seq2seq))


@contextlib.contextmanager
def not_fatal(what: str, run: Path) -> Generator[None]:
    """A block that describes what is already saved: whatever goes wrong in it is a warning, and the run goes on."""
    try:
        yield
    except Exception as e:
        failed = f"{what} could not be written ({type(e).__name__}: {e})"
        log.warning("%s; the run itself is whole\n  -> plad report %s writes it again", failed, run)
        log.debug("%s", failed, exc_info=True)
