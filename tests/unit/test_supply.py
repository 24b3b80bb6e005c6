"""What is installed: pinned, hashed, and under licences that somebody has looked at."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.supply.licences import PINS, REVIEWED, installed, pinned, problem

ROOT = Path(__file__).parents[2]
UNLOCKED = {"torch"}  # which of its builds is right depends on the machine
EXTRAS = ("gguf", "tune", "bench", "dev")  # of make setup


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.+!]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_the_lock_has_hashes_of_what_the_constraints_pin() -> None:
    lock, wanted = (ROOT / "requirements.lock").read_text(), pins(PINS.read_text())
    assert pins(lock) == {name: version for name, version in wanted.items() if name not in UNLOCKED}
    for entry in re.split(r"\n(?=\w)", lock.strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def needed(names: set[str]) -> set[str]:
    """Packages with all that they need in this environment."""
    seen: set[tuple[str, str]] = set()
    left = [(canonicalize_name(r.name), extra) for n in names for r in [Requirement(n)] for extra in ("", *r.extras)]
    while left:
        name, extra = left.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for r in map(Requirement, lines):
            if r.marker is None or r.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(r.name), more) for more in ("", *r.extras)]
    return {name for name, _ in seen}


def test_what_is_installed_is_pinned() -> None:
    known = set(pins(PINS.read_text()))
    found = {n for n in needed({f"plad[{','.join(EXTRAS)}]"}) if not n.startswith(("nvidia-", "cuda-", "triton"))}
    assert found - known == {"plad"}


def test_every_licence_is_permissive_or_reviewed() -> None:
    licences = installed(pinned())
    assert len(licences) > 100
    assert [said for name, licence in licences.items() if (said := problem(name, licence))] == []
    assert [name for name in REVIEWED if name in licences and problem(name, "GPL-3.0-only") is None] == []


@pytest.mark.parametrize(
    "licence",
    ["unknown", "GPL-3.0-only", "MIT AND LGPL-3.0-only", "(MIT OR GPL-2.0-only) AND AGPL-3.0-only", "MPL-2.0"],
)
def test_a_licence_that_nobody_looked_at_is_a_problem(licence: str) -> None:
    assert "some-package: " in (problem("some-package", licence) or "")


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0 AND MIT", "GPL-3.0-only OR MIT"])
def test_permissive_licences_need_no_look(licence: str) -> None:
    assert problem("some-package", licence) is None
