"""A real browser for tests and screenshots: the system's Chromium, or Playwright's own.

`python -m tests.support.browser` says whether one starts; with `--install` it installs one where there is none:
through apt where that may be done (root on Debian), else Playwright's into the virtual environment.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", "0")  # inside the virtual environment

from playwright.sync_api import Browser, Error, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
QUIET = (  # a browser that calls nobody by itself
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)


def executable() -> str | None:
    """The browser named by PLAD_BROWSER, else the system's; None for Playwright's own."""
    return os.environ.get("PLAD_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium; its sandbox needs a user who is not root."""
    sandbox = hasattr(os, "geteuid") and os.geteuid() != 0
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable(), args=QUIET, chromium_sandbox=sandbox)
        try:
            yield started
        finally:
            started.close()


def starts() -> str | None:
    """The version of the browser, or None where none starts."""
    try:
        with browser() as started:
            return started.version
    except Error:
        return None


def install() -> None:
    """Install a browser the way this machine allows."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium-headless-shell"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"], check=True)


def main() -> None:
    """Report the browser, installing it first where asked to."""
    version = starts()
    if version is None and "--install" in sys.argv:
        install()
        version = starts()
    if version is None:
        sys.exit("no Chromium starts: install one, or name it in PLAD_BROWSER")
    print(f"browser: Chromium {version}")


if __name__ == "__main__":
    main()
