"""Texts that would run, hide, move or flood a page: all of them reach it as text."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plad.records import Example
from plad.report.page import render_report
from plad.report.parts.formatting import harmless
from tests.support.hostile_texts import NASTY
from tests.support.written_runs import CONFIG, page_texts, write_run

SYSTEMS = ("teacher", "student_sft", "student", "further")


def pages(path: Path, texts: Sequence[str], config: dict[str, Any] = CONFIG) -> tuple[str, str]:
    """Page and Markdown of a run whose ids, prompts, targets and answers are `texts`, six of them an example."""
    rows = [texts[i : i + 6] for i in range(0, len(texts), 6)]
    rows = [[*row, *texts[: 6 - len(row)]] for row in rows]
    examples = [Example(row[5], row[0], (row[1], "another reference")) for row in rows]
    answers = {system: [row[2 + k] for row in rows] for k, system in enumerate(SYSTEMS)}
    write_run(path, examples, answers, config=config, metrics_rows=[])
    render_report(path)
    folder = path / "report"
    return (folder / "index.html").read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")


PLAIN = [f"plain words {i}" for i in range(len(NASTY))]


def tags(page: str) -> set[str]:
    """Every kind of tag with its attributes, but for what numbers change (figures, tones) and labels."""
    page = re.sub(r'<svg.*?</svg>|(?<=<script>).*?(?=</script>)|<p id="legend-points">.*?</p>', "", page, flags=re.S)
    changing = r' aria-label="[^"]*"|(?<=<td) class="tone \w+"'
    return {re.sub(changing, "", t) for t in re.findall(r"<[a-zA-Z/!][^>]*>", page)}


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pages(tmp_path_factory.mktemp("nasty"), list(NASTY.values()))[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pages(tmp_path_factory.mktemp("plain"), PLAIN)[0]


def test_nasty_texts_add_no_element_and_no_attribute(nasty: str, plain: str) -> None:
    assert tags(nasty) == tags(plain)


def test_no_character_can_steer_the_reader_or_the_terminal(nasty: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", nasty)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_every_nasty_text_is_shown(nasty: str, text: str) -> None:
    assert harmless(text) in page_texts(nasty)


def test_markdown_twin_holds_no_live_markup_of_the_settings(tmp_path: Path) -> None:
    config = {**CONFIG, "note <script>": "| x | <img src=x> [a](javascript:b) \x1b[31m"}
    _, markdown = pages(tmp_path, PLAIN, config=config)
    assert "\\<img src=x\\> \\[a\\]" in markdown
    assert not re.search(r"(?<!\\)<", markdown)
    assert "\x1b" not in markdown


def test_secrets_in_settings_are_redacted(tmp_path: Path) -> None:
    page, markdown = pages(tmp_path, PLAIN, config={"url": "https://user:pa55word@host/v1", "key": "sk-abcdefgh1234"})
    for text in (page, markdown):
        assert "pa55word" not in text
        assert "sk-abcdefgh1234" not in text


def test_a_megabyte_is_folded_with_a_note(tmp_path: Path) -> None:
    page, markdown = pages(tmp_path, ["0123456789" * 100_000] * 6)
    assert {len(text) for text in page_texts(page)} - {0} <= {20_000, 81}
    assert len(page) < 500_000
    assert len(markdown) < 50_000


def test_lone_surrogates_do_not_stop_the_page(tmp_path: Path) -> None:
    pages(tmp_path, PLAIN)
    (tmp_path / "config.resolved.json").write_text('{"odd": "\\ud800"}')
    render_report(tmp_path)
    assert "‹U+D800›" in (tmp_path / "report/index.html").read_text(encoding="utf-8")
