"""Pictures of report pages for the docs.

python -m tests.support.screenshots runs/demo --out docs/images
python -m tests.support.screenshots runs/demo runs/seqkd --out docs/images     and a comparison of both
"""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from plad.cli.compare import by_name
from plad.report.comparison import write_comparison
from plad.report.page import render_report
from tests.support.browser import browser

WIDE, PHONE = {"width": 1200, "height": 1000}, {"width": 360, "height": 780}
COLOURS = 96  # of a picture's palette: a page has few


def save(png: bytes, file: Path) -> None:
    """Write a picture with a small palette."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1024:.0f} KiB")


def shoot(chromium: Browser, page: Path, size: dict[str, int], scheme: str, place: str | None, file: Path) -> None:
    """Picture the window with `place` at its top, the example on which the first system is furthest ahead open."""
    tab = chromium.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    tab.goto(page.resolve().as_uri())
    if place is not None:
        tab.select_option("#order", "ours")
        tab.locator(place).evaluate("e => e.scrollIntoView({behavior: 'instant'})")
    save(tab.screenshot(), file)
    tab.close()


def take(runs: list[Path], out: Path) -> None:
    """Pictures of the first run's page, and one of the comparison where there are several runs."""
    out.mkdir(parents=True, exist_ok=True)
    render_report(runs[0])
    report = runs[0] / "report/index.html"
    with browser() as chromium, tempfile.TemporaryDirectory() as folder:
        shoot(chromium, report, WIDE, "light", None, out / "report.png")
        shoot(chromium, report, WIDE, "light", "#calibration", out / "calibration.png")
        shoot(chromium, report, WIDE, "light", "#examples", out / "examples.png")
        shoot(chromium, report, PHONE, "dark", ".skyline", out / "phone.png")
        if len(runs) > 1:
            comparison = Path(folder) / "comparison.html"
            write_comparison(by_name(runs), comparison)
            shoot(chromium, comparison, WIDE, "dark", None, out / "comparison.png")


def main() -> None:
    """Parse, take, print."""
    parser = argparse.ArgumentParser(description="Pictures of report pages for the docs.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="finished runs; the first one's page is shown"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    given = parser.parse_args()
    take(given.runs, given.out)


if __name__ == "__main__":
    main()
