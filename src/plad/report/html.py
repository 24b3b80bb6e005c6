"""How a page is made: one HTML file that needs no network and runs no script but its own."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from plad.report.sections.cases import Cases
from plad.report.sections.keypoints import GROUNDED, LIMITS, RULE
from plad.report.wording import harmless
from plad.text import redact

_GLUED = re.compile(r"(?<=\bp) (?=[=<])|(?<=\bp [=<]) (?=\d)|(?<=\d) (?=%)")
_POLICY = "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@cache
def _own(name: str) -> str:
    return files("plad.report").joinpath("web", name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    return redact(harmless(value)) if type(value) is str else value


def unbroken(text: str) -> str:
    """`text` whose figures keep their sign and unit on their line."""
    return _GLUED.sub("\u00a0", text)


def render(template: str, cases: Cases | None, **values: Any) -> str:
    """A page from one of the templates.

    All text that isn't the template's own is escaped and made harmless. The examples stand in the page as JSON, which
    the page's script shows as text; the policy lets that one script run, by its hash, and nothing else.

    Args:
        cases: what the case browser shows, or None for a page without it.
        values: what the template names.
    """
    script = _own("page.js") if cases else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if cases else "'none'"
    environment = Environment(
        loader=PackageLoader("plad.report", "web"),
        autoescape=select_autoescape(["html"], default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    page = environment.get_template(template).render(
        css=Markup(_own("page.css")),
        policy=f"default-src 'none'; script-src {allowed}; {_POLICY}",
        script=Markup(f"<script>{script}</script>") if cases else "",
        cases=cases,
        data=Markup(cases.json()) if cases else "",
        grounded=cases is not None and (cases.grounded or 0) >= GROUNDED,
        rule=RULE,
        limits=LIMITS,
        **values,
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")  # a lone surrogate has no bytes
