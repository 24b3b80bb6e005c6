"""The whole page from a finished run, read back as a browser's parser reads it."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from plad.errors import RunDirError
from plad.records import Example
from plad.report.page import render_report
from plad.report.sections.examples import BUDGET
from plad.rundir.atomic import write_json
from tests.support.written_runs import MANIFEST, page_cases, page_texts, write_full_run, write_run

VOID = {"meta", "br", "img", "link", "input", "hr", "path", "use", "rect", "circle"}
TEXTS = [
    "<script>alert(1)</script>",
    "</script><b>bold</b>",
    "{{ 7*7 }}",
    "\u202eright to left\u202c",
    "\x1b[31mred\x1b[0m",
    "x" * 1_000_000,
    "שלום עולם",
    "",
]


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[int] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run"
    examples = [Example(f"row-{i}", f"Prompt {i}: {t[:500]}", ("a target", "a reference")) for i, t in enumerate(TEXTS)]
    examples[0] = Example(
        "row-0", ({"role": "system", "content": "Be brief"}, {"role": "user", "content": "<i>Hi</i>"}), ("a", "b")
    )
    write_full_run(
        path,
        examples,
        {"teacher": ["a reference"] * 8, "student_sft": TEXTS[::-1], "student": TEXTS, "other <b>": ["x"] * 8},
    )
    render_report(path)
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report/index.html").read_text(encoding="utf-8"))


def test_nothing_runs_and_nothing_is_fetched(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert [a for tag, a in page.tags if tag == "script"] == [{"type": "application/json", "id": "cases"}, {}]
    assert not names & {"iframe", "object", "embed", "link", "img", "image", "base", "form", "b", "i"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "src", tag
            assert "http" not in (value or "") or name == "http-equiv", (tag, name, value)
            if name.endswith("href"):
                assert (value or "").startswith("#"), (tag, value)
            assert not re.search(r"url\((?!#)", value or ""), (tag, value)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )


def test_every_text_is_shown_as_it_is(run: Path, page: Page) -> None:
    html = (run / "report/index.html").read_text(encoding="utf-8")
    texts = page_texts(html)
    for text in ("<script>alert(1)</script>", "</script><b>bold</b>", "{{ 7*7 }}", "<i>Hi</i>", "שלום עולם"):
        assert text in texts
    assert "‹U+202E›right to left‹U+202C›" in texts
    assert "␛[31mred␛[0m" in texts
    assert "other <b>" in page.text
    cases = page_cases(html)
    assert cases["cases"][5]["texts"][1][2] == 980_000  # characters left out
    assert [name for _, name in cases["systems"]] == [
        "Human target",
        "Distilled student",
        "SFT student",
        "Teacher",
        "other <b>",
    ]


def test_the_page_can_be_walked_by_headings_landmarks_and_anchors(page: Page) -> None:
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    names = [tag for tag, _ in page.tags]
    assert (names.count("main"), names.count("header"), names.count("footer"), names.count("nav")) == (1, 1, 1, 1)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {(a["href"] or "")[1:] for _, a in page.tags if a.get("href")}
    labels = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert targets | labels <= set(ids)
    assert dict(page.tags)["html"]["lang"] == "en"


def test_every_figure_has_words_and_every_wide_table_its_own_scroll(page: Page) -> None:
    names = [tag for tag, _ in page.tags]
    assert names.count("figure") == names.count("svg") - 1 == names.count("figcaption") > 5  # and the skyline
    assert all(a.get("aria-hidden") == "true" for tag, a in page.tags if tag == "svg")
    assert sum(a.get("class") == "hidden" for _, a in page.tags) == names.count("figure")
    boxes = [a for _, a in page.tags if a.get("class") == "box"]
    assert len(boxes) == names.count("table")
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in boxes)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")


def test_the_page_and_its_markdown_hold_the_same_figures(run: Path, page: Page) -> None:
    markdown = (run / "report/report.md").read_text(encoding="utf-8")
    figures = re.compile(r"[+−]?\d+\.\d+")
    assert set(figures.findall(markdown)) - set(figures.findall(page.text)) == set()
    for title in ("Results on the test set", "From rows to pairs", "Time and cost by stage", "Settings", "Versions"):
        assert f"## {title}" in markdown


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    before = [(run / f"report/{name}").read_bytes() for name in ("index.html", "report.md")]
    render_report(run)
    assert [(run / f"report/{name}").read_bytes() for name in ("index.html", "report.md")] == before


def test_a_page_beside_its_examples_leaves_them_room_below_3_mb(run: Path, page: Page) -> None:
    html = (run / "report/index.html").read_bytes()
    assert len(html) - len(page.scripts[0].encode()) + BUDGET < 3_000_000 - 200_000  # figures of further judges


def test_a_run_that_has_only_begun_has_a_page_that_says_so(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"schema": 1, "stages": {}})
    render_report(tmp_path)
    text = Page((tmp_path / "report/index.html").read_text(encoding="utf-8")).text
    assert "Not evaluated yet" in text
    assert "No stage has finished yet" in text
    assert "Left out, because the run has no config.resolved.json, eval/metrics.json" in text


FILES = ("eval/metrics.json", "eval/answers.jsonl", "metrics.jsonl", "eval/judgements.parquet")


@pytest.mark.parametrize("gone", FILES)
def test_a_missing_file_leaves_out_its_part_only(tmp_path: Path, gone: str) -> None:
    example = Example("a", "P", ("t", "r"))
    row = {"stage": "distill", "step": 1, "loss": 1.0}
    write_run(tmp_path, [example], {"student_sft": ["x"], "student": ["r"]}, metrics_rows=[row])
    (tmp_path / gone).unlink()
    render_report(tmp_path)
    text = Page((tmp_path / "report/index.html").read_text(encoding="utf-8")).text
    assert f"the run has no {gone}." in text
    parts = {FILES[0]: "Results on the test set", FILES[1]: "The arrow keys", FILES[2]: "Distilling: loss"}
    for file, part in parts.items():
        assert (part in text) == (file != gone)


@pytest.mark.parametrize(
    ("file", "content"), [("metrics.jsonl", "{\n"), ("eval/metrics.json", "{"), ("manifest.json", "{")]
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: str) -> None:
    write_json(tmp_path / "manifest.json", MANIFEST)
    (tmp_path / "eval").mkdir(exist_ok=True)
    (tmp_path / file).write_text("{\n")
    with pytest.raises(RunDirError, match=file):
        render_report(tmp_path)


def test_a_log_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", MANIFEST)
    (tmp_path / "metrics.jsonl").write_text('{"stage": "distill", "step": 1, "loss": 1.0}\n{"stage": "dist')
    render_report(tmp_path)
    assert "Distilling: loss" in (tmp_path / "report/index.html").read_text(encoding="utf-8")
