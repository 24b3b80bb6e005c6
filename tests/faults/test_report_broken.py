"""What describes a run breaks: the student that was trained is on disk all the same, whole; and sections are data."""

import html
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plad.config.root import Config
from plad.objectives.plad import RankObjective
from plad.pipeline.resources import Resources
from plad.pipeline.stages import distill, report
from plad.report import page
from plad.report.page import render_report
from plad.report.parts import blocks
from plad.report.parts.blocks import Cell, ReportSection, Table, Text
from plad.report.parts.run_facts import RunFacts
from plad.report.sections import SECTIONS
from plad.rundir.atomic import verify_dir, write_json, write_text
from plad.rundir.directory import open_run
from tests.support.command import call
from tests.support.written_runs import BAD, EXAMPLES, GOOD, write_full_run

CONFIG = {
    "data": {"train": "train.jsonl", "test": "test.jsonl"},
    "teacher": {"model": "owner/teacher"},
    "student": {"model": "owner/student"},
}


def broken(*_: Any, **__: Any) -> Any:
    raise AttributeError("no words for this")


def save(_: Any, folder: Path) -> None:
    write_json(folder / "config.json", {"is_encoder_decoder": False})
    write_text(folder / "model.safetensors", "weights")


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """A run up to the pairs, whose training takes no time."""
    monkeypatch.setattr(distill, "read_pairs_parquet", lambda _: [])
    monkeypatch.setattr(distill, "save_policy", save)
    monkeypatch.setattr(distill, "distilled", lambda *_: (object(), {"steps": 3}))
    config = Config.model_validate({"run": {"dir": tmp_path / "run"}, **CONFIG})
    path = tmp_path / "run"
    write_full_run(path, EXAMPLES, {"teacher": GOOD, "student_sft": BAD, "student": GOOD}, config=config.model_dump())
    with open_run(path) as run:
        yield Resources(config, run, tmp_path)


def warned(caplog: pytest.LogCaptureFixture, ctx: Resources) -> str:
    (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert f"plad report {ctx.run.path}" in record.getMessage()
    return record.getMessage()


def a_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RankObjective, "describe", broken)


def a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "card_text", broken)


@pytest.mark.parametrize("breaks", [a_phrase, a_card])
def test_a_broken_phrase_or_card_costs_the_card_and_not_the_student(
    ctx: Resources,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    breaks: Callable[[pytest.MonkeyPatch], None],
) -> None:
    with monkeypatch.context() as patch:
        breaks(patch)
        assert distill.run(ctx, {}) == {"steps": 3}
    verify_dir(ctx.run / "student")
    assert (ctx.run / "student/model.safetensors").read_text() == "weights"
    assert "the student's card could not be written (AttributeError: no words for this)" in warned(caplog, ctx)
    assert not (ctx.run / "student/README.md").exists()
    render_report(ctx.run.path)  # the way out that the warning names
    verify_dir(ctx.run / "student")
    assert "ranking calibration (Eq. 4)" in (ctx.run / "student/README.md").read_text()


def test_a_broken_plot_costs_neither_the_card_nor_the_student(
    ctx: Resources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    distill.run(ctx, {})
    monkeypatch.setattr(blocks, "render_svg", broken)
    assert report.run(ctx, {}) == {}
    verify_dir(ctx.run / "student")
    assert "could not be drawn (AttributeError: no words for this)" in caplog.text
    assert "This plot could not be drawn" in (ctx.run / "report/index.html").read_text()
    assert "| Distilled student |" in (ctx.run / "report/report.md").read_text()
    assert "| Distilled student |" in (ctx.run / "student/README.md").read_text()


def test_a_broken_section_is_left_out_with_a_warning(
    ctx: Resources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page, "SECTIONS", (broken, *SECTIONS))
    render_report(ctx.run.path)
    left_out = "the section 'broken' could not be made (AttributeError: no words for this)"
    assert left_out in caplog.text
    for file in ("index.html", "report.md"):
        text = html.unescape((ctx.run / f"report/{file}").read_text().replace("\\", ""))
        assert left_out in text
        assert "Results on the test set" in text


def test_a_broken_page_fails_its_stage_and_costs_nothing_else(ctx: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage whose whole outcome is missing is not done; the next run writes it."""
    distill.run(ctx, {})
    with monkeypatch.context() as patch:
        patch.setattr(page, "render", broken)
        with pytest.raises(AttributeError, match="no words for this"):
            report.run(ctx, {})
    verify_dir(ctx.run / "student")
    assert "ranking calibration (Eq. 4)" in (ctx.run / "student/README.md").read_text()
    assert report.run(ctx, {}) == {}
    assert "| Distilled student |" in (ctx.run / "student/README.md").read_text()


def test_a_section_that_is_added_stands_on_page_markdown_and_terminal(
    ctx: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One function, one place in the list."""

    def weather(facts: RunFacts) -> ReportSection:
        table = Table("The weather", ("Place", "Rain"), ((Cell(facts.name), Cell("0.1234")),))
        return ReportSection(
            "weather", "What the weather was", "Weather", (Text("It rained."), table), ("take a coat",)
        )

    monkeypatch.setattr(page, "SECTIONS", (*SECTIONS, weather))
    render_report(ctx.run.path)
    shown = [(ctx.run / f"report/{file}").read_text() for file in ("index.html", "report.md")]
    code, terminal, _ = call("report", ctx.run.path, "--terminal")
    assert code == 0
    for text in (*shown, terminal):
        assert [part for part in ("take a coat", "It rained.", "Rain", "0.1234") if part not in text] == []
    assert '<a href="#weather">Weather</a>' in shown[0]
    assert "What the weather was" in shown[0]
