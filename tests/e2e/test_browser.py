"""The page in a real browser, opened from disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from plad.records import Example
from plad.report.comparison import write_comparison
from plad.report.page import render_report
from tests.support.browser import browser
from tests.support.hostile_texts import NASTY
from tests.support.written_runs import write_full_run, write_run

SUBJECTS = ["cats", "dogs", "birds", "fish", "cows", "bees", "ants", "bats"]
WIDTHS = (360, 1400)


def example(i: int) -> Example:
    subject = SUBJECTS[i]
    prompt = f"Summarize: {subject} sleep all day, {subject} hunt mice at night and eat pizza."
    return Example(f"row-{i}", prompt, (f"{subject} sleep and hunt", f"{subject} hunt mice by night"))


EXAMPLES = [example(i) for i in range(8)]
BEFORE = ["it rains", "no idea", "birds rest", "fish hunt mice by night", "who", "what", "when", "bats"]
AFTER = [f"{s} hunt mice in Paris, mice" for s in SUBJECTS]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "run"
    write_run(path, EXAMPLES, {"teacher": ["x"] * 8, "student_sft": BEFORE, "student": AFTER, "seqkd": BEFORE})
    render_report(path)
    return path / "report/index.html"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part there is."""
    path = tmp_path_factory.mktemp("full") / "run"
    answers = {"teacher": [e.references[1] for e in EXAMPLES], "student_sft": BEFORE, "student": AFTER}
    write_full_run(path, EXAMPLES, {**answers, "seqkd": BEFORE[::-1], "f_distill-js": AFTER[::-1]})
    render_report(path)
    return path / "report/index.html"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part whose ids, prompts, roles, targets, answers, settings, judges and models are all nasty."""
    path = tmp_path_factory.mktemp("nasty") / "run"
    texts = list(NASTY.values())
    rows = [
        Example(t, ({"role": t, "content": t},) if i % 2 else t, (texts[i - 1], texts[i - 2]))
        for i, t in enumerate(texts)
    ]
    systems = ("teacher", "student_sft", "student", "<script>alert(1)</script>")
    answers = {s: texts[k:] + texts[:k] for k, s in enumerate(systems)}
    write_full_run(path, rows, answers, config=dict(NASTY), metrics_rows=[])
    for file in ("eval/metrics.json", "manifest.json"):
        text = (path / file).read_text()
        for name, kind in (("reference", "script"), ("opinion", "attribute"), ("owner/opinion-7b", "image")):
            text = text.replace(json.dumps(name), json.dumps(NASTY[kind]))
        (path / file).write_text(text)
    render_report(path)
    return path / "report/index.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    runs = {"rank": folder / "rank", "seqkd": folder / "seqkd", "<b>third</b>": folder / "third"}
    students = {"rank": (AFTER, "rank", 0), "seqkd": (BEFORE, "seqkd", 0), "<b>third</b>": (["bees"] * 8, "rank", 1)}
    for name, (answers, kind, seed) in students.items():
        given = {"teacher": [e.references[1] for e in EXAMPLES], "student_sft": BEFORE[::-1], "student": answers}
        write_full_run(runs[name], EXAMPLES, given, config={"run": {"seed": seed}, "kind": kind}, metrics_rows=[])
    write_comparison(runs, folder / "comparison.html")
    return folder / "comparison.html"


class Opened:
    """A page with everything it did that it should not."""

    def __init__(self, chromium: Browser, file: Path, *, width: int = 1400, scheme: str = "light") -> None:
        look: Any = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "reduced_motion": "reduce"}
        self.context = chromium.new_context(**look)
        self.page: Page = self.context.new_page()
        self.troubles: list[str] = []
        self.page.on("console", lambda m: self.troubles.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.troubles.append(f"error: {e}"))
        self.page.on("dialog", lambda d: self.troubles.append(f"dialog: {d.message}"))
        self.requests: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(file.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def id(self) -> str:
        return self.page.inner_text("#case h3 bdi")

    def ids(self) -> list[str]:
        """The ids of all examples in their present order."""
        found = []
        for _ in range(int(self.page.get_attribute("#position", "max") or 0)):
            found.append(self.id())
            if self.page.is_enabled("#next"):
                self.page.click("#next")
        return found


@pytest.fixture
def opened(chromium: Browser, file: Path) -> Iterator[Opened]:
    with Opened(chromium, file) as found:
        yield found
        assert found.troubles == []


def test_it_opens_without_a_request_and_shows_the_first_example(opened: Opened, file: Path) -> None:
    assert opened.requests == [file.as_uri()]
    assert opened.id() == "row-0"
    assert opened.page.inner_text("#place") == "1 of 8"
    names = [h.inner_text() for h in opened.page.query_selector_all("#case h4")]
    assert names == ["Distilled student", "SFT student", "Human target", "Teacher", "SeqKD"]
    assert "Distilled student ahead by" in opened.page.inner_text("#case .chip")


def test_previous_next_keys_and_slider_move_through_the_examples(opened: Opened) -> None:
    page = opened.page
    page.click("#next")
    assert opened.id() == "row-1"
    page.click("#previous")
    page.click("#previous")
    assert opened.id() == "row-7"  # around the end
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert opened.id() == "row-1"
    page.keyboard.press("ArrowLeft")
    assert opened.id() == "row-0"
    page.focus("#position")
    page.keyboard.press("End")
    assert opened.id() == "row-7"
    assert (page.get_attribute("#position", "aria-valuetext") or "").startswith("8 of 8: Distilled student ahead")
    page.click("#skyline", position={"x": 2, "y": 20})
    assert opened.id() == "row-0"


def test_arrow_keys_leave_fields_alone(opened: Opened) -> None:
    opened.page.focus("#search")
    opened.page.keyboard.press("ArrowRight")
    opened.page.focus("#order")
    opened.page.keyboard.press("ArrowDown")
    assert opened.page.inner_text("#place") == "1 of 8"


def test_filters_count_and_keep_what_they_name(opened: Opened) -> None:
    page = opened.page
    options = [o.inner_text() for o in page.query_selector_all("#filter option")]
    assert options == [
        "all (8)",
        "Distilled student ahead (7)",
        "SFT student ahead (1)",
        "equal (0)",
        "one was cut off (0)",
    ]
    page.select_option("#filter", "rival")
    assert opened.ids() == ["row-3"]
    assert page.is_disabled("#next")
    page.select_option("#filter", "equal")
    assert page.inner_text("#place") == "none"
    assert "No example fits" in page.inner_text("#case")
    page.select_option("#filter", "all")
    page.fill("#search", "bees")
    assert opened.ids() == ["row-5"]


def test_sorting_by_margin_and_by_length(opened: Opened) -> None:
    page = opened.page
    by_margin = page.evaluate(
        """() => { const d = JSON.parse(document.getElementById("cases").textContent);
        const m = d.cases.map((c) => c.scores[0][0][0] - c.scores[0][1][0]);
        return d.cases.map((_, i) => i).sort((a, b) => m[b] - m[a] || a - b).map((i) => d.cases[i].id); }"""
    )
    page.select_option("#order", "ours")
    assert opened.ids() == by_margin
    page.select_option("#order", "rival")
    assert opened.ids()[0] == "row-3"
    page.select_option("#ours", label="SFT student")
    page.select_option("#rival", label="Human target")
    page.select_option("#order", "long")
    assert opened.ids()[:3] == ["row-3", "row-0", "row-1"]
    assert "SFT student ahead (" in page.inner_text("#filter")


def serious(page: Page, part: str | None = None) -> list[tuple[str, str]]:
    """What axe finds serious or critical, in the whole page or a part: the rule, and the first that breaks it."""
    found = Axe().run(page, context=part).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]


def marks(page: Page, card: int = 0) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for mark in page.locator("#case .answer").nth(card).locator("mark, ins, del").all():
        kind = mark.get_attribute("class") or mark.evaluate("e => e.tagName")
        found.setdefault(kind, []).append(mark.inner_text())
    return found


def test_key_points_are_marked_and_counted(opened: Opened) -> None:
    assert marks(opened.page) == {"shared": ["cats hunt mice"], "unsupported": ["Paris"], "redundant": ["mice"]}
    assert opened.page.inner_text("#case .found >> nth=0") == "3 key words shared, 1 redundant, 1 unsupported"


def test_differences_are_marked_word_by_word(opened: Opened) -> None:
    page = opened.page
    page.select_option("#filter", "rival")
    page.check("input[value=changes]")
    assert marks(page, 0) == {"INS": ["in Paris, mice"]}
    assert marks(page, 1) == {"DEL": ["by night"]}
    assert page.is_visible("#legend-changes")
    page.check("input[value=nothing]")
    assert marks(page, 0) == {}
    assert page.inner_text("#case .text >> nth=1") == "fish hunt mice in Paris, mice"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_layout_holds_and_nothing_keeps_a_reader_out(chromium: Browser, full: Path, width: int, scheme: str) -> None:
    with Opened(chromium, full, width=width, scheme=scheme) as found:
        page = found.page
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert serious(page) == []
        page.check("input[value=changes]")
        assert serious(page, "#examples") == []
        assert found.troubles == []


def test_the_verdict_stands_first_and_the_parts_in_their_order(chromium: Browser, full: Path) -> None:
    with Opened(chromium, full) as found:
        page = found.page
        assert page.locator("p").first.get_attribute("class") == "headline"
        sections = page.locator("main > section").evaluate_all("all => all.map((s) => s.id)")
        assert sections == ["models", "results", "calibration", "training", "data", "cost", "examples", "judges", "how"]
        for section in sections:
            page.click(f"nav a[href='#{section}']")
            assert page.locator(f"#{section}").is_visible()
        assert page.locator("#calibration figure").count() == 3
        assert "likelier one" in page.inner_text("#calibration")
        assert "26.0 % of 100 comparisons" in page.inner_text("#judges").replace("\u00a0", " ")
        assert "$0.0123" in page.inner_text("#cost")
        assert found.requests[0] == full.as_uri()
        assert found.troubles == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_shows_the_students_of_all_runs_side_by_side(
    chromium: Browser, comparison: Path, width: int
) -> None:
    with Opened(chromium, comparison, width=width) as found:
        page = found.page
        names = [h.inner_text() for h in page.query_selector_all("#case h4")]
        assert names == ["rank", "seqkd", "Human target", "<b>third</b>"]
        page.select_option("#filter", "rival")
        assert found.ids() == ["row-3"]
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert serious(page) == []
        assert page.locator("#seeds tbody tr").count() == 6
        tables = page.locator("#calibration table").all()
        assert [t.locator("tbody tr").count() for t in tables] == [3, 3], "own texts, and all"
        assert found.requests == [comparison.as_uri()]
        assert found.troubles == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nasty_texts_stay_text(chromium: Browser, nasty: Path, width: int) -> None:
    with Opened(chromium, nasty, width=width) as found:
        page = found.page
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        for mode in ("points", "changes"):
            page.check(f"input[value={mode}]")
            seen = found.ids()
            assert len(seen) == len(NASTY)
            assert NASTY["script"] in seen
            assert NASTY["template"] in seen
            assert "‹U+202E›gnirts desrever‹U+202C› ‹U+2066›isolated" in seen
            assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#calibration figure").count() == 3
        assert NASTY["script"] in page.inner_text("#calibration")
        assert page.evaluate("document.scripts.length") == 2
        assert page.evaluate("document.querySelectorAll('img, iframe, object, [onerror], [onmouseover]').length") == 0
        assert found.requests == [nasty.as_uri()]
        assert found.troubles == []


def test_a_script_that_is_not_the_pages_own_is_refused(chromium: Browser, file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "index.html"
    text = file.read_text(encoding="utf-8").replace('<div id="case">', "<script>window.ran = 1</script><div id='case'>")
    changed.write_text(text, encoding="utf-8")
    with Opened(chromium, changed) as found:
        assert found.page.evaluate("window.ran") is None
        assert any("Content Security Policy" in t for t in found.troubles)
        assert found.id() == "row-0"  # and the page's own still runs


def test_on_paper_stand_the_examples_that_were_chosen(opened: Opened) -> None:
    page = opened.page
    page.fill("#search", "pizza")
    page.click("#next")
    page.emulate_media(media="print")
    assert page.locator("#results details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#results details:not([open])").count() == 0
    assert page.is_visible("text=Distinct-1")
    assert not page.is_visible("#how summary")
    assert page.locator("#case article").count() == 7
    assert not page.is_visible(".controls")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#results details[open]").count() == 0
    assert page.locator("#case article").count() == 1
    assert page.pdf()[:4] == b"%PDF"
