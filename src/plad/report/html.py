"""A report as a page: one HTML file that needs no network and runs no script but its own."""

import base64
import hashlib
import logging
import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from plad.report.parts.blocks import Block, Plot, Report
from plad.report.parts.formatting import harmless
from plad.text import redact

log = logging.getLogger("plad")

_GLUED = re.compile(r"(?<=\bp) (?=[=<])|(?<=\bp [=<]) (?=\d)|(?<=\d) (?=%)")
_POLICY = "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(report: Report) -> str:
    """The page of a report.

    All text that isn't the template's own is escaped and made harmless. The examples stand in the page as JSON, which
    the page's script shows as text; the policy lets that one script run, by its hash, and nothing else.
    """
    script = _file("page.js") if report.examples else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    page = (
        _environment()
        .get_template("page.html")
        .render(
            r=report,
            css=Markup(_file("page.css")),
            policy=f"default-src 'none'; script-src {allowed}; {_POLICY}",
            script=Markup(f"<script>{script}</script>") if script else "",
            drawn=drawn,
            kind_of=kind_of,
        )
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")  # a lone surrogate has no bytes


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("plad.report", "web"),
        autoescape=select_autoescape(["html"], default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment


@cache
def _file(name: str) -> str:
    return files("plad.report").joinpath("web", name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    return redact(harmless(value)) if type(value) is str else value


def unbroken(text: str) -> str:
    """`text` whose figures keep their sign and unit on their line."""
    return _GLUED.sub("\u00a0", text)


def kind_of(block: Block) -> str:
    """The name of its class, by which the template knows how to show it."""
    return type(block).__name__


def drawn(plot: Plot) -> str:
    """The plot itself; a sentence where it can't be drawn, and a warning."""
    try:
        return Markup(plot.svg)
    except Exception as e:
        log.warning("plot %r could not be drawn (%s: %s)", plot.title, type(e).__name__, e)
        return Markup("<p>This plot could not be drawn; its figures stand in the tables.</p>")
