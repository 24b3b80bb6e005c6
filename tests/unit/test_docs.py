"""What the documents point to is there."""

import re
from pathlib import Path

import pytest

from plad.config.engines import EngineSection
from plad.config.judges import JudgeSection
from plad.config.kinds import Kind
from plad.config.objectives import ObjectiveSection

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
NAMED = re.compile(r"`((?:src/plad|tests|benchmarks|recipes|docs)/[\w./-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_a_page_links_to_or_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    places = [page.parent / link for link in LINK.findall(text)] + [ROOT / name for name in NAMED.findall(text)]
    assert [str(place.relative_to(ROOT)) for place in places if not place.exists()] == []


def test_the_pattern_sees_links_and_names() -> None:
    assert LINK.findall("[a](docs/a.md) [b](https://x.org) [c](#here) [d](b.md#part)") == ["docs/a.md", "b.md"]
    assert NAMED.findall("`src/plad/config/` and `plad run`") == ["src/plad/config/"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_fits_100_columns(page: Path) -> None:
    """Tables, code and pictures may be longer."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 100] == []


def test_every_test_that_the_page_of_faults_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/faults.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    assert [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()] == []


@pytest.mark.parametrize(
    ("section", "pages"),
    [(ObjectiveSection, ("objectives", "baselines")), (JudgeSection, ("judges",)), (EngineSection, ("teachers",))],
)
def test_every_kind_has_a_row(section: type[Kind], pages: tuple[str, ...]) -> None:
    """In a table of its page, by its `type`."""
    text = "\n".join((ROOT / f"docs/{page}.md").read_text(encoding="utf-8") for page in pages)
    rows = "\n".join(re.findall(r"^\|.*$", text, flags=re.MULTILINE))
    assert [name for name in section.kinds() if not re.search(rf"`{name}[`,]", rows)] == []
