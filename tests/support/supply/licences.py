"""Licences of everything that constraints.txt pins: `make licences`. One that nobody has looked at fails."""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PINS = Path(__file__).parents[3] / "constraints.txt"
PERMISSIVE = {  # may be used by software of any licence, as long as their notices stay
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("CNRI-Python", "ISC", "MIT", "MIT-CMU", "PSF-2.0", "Zlib"),
    *("Apache 2.0 License", "Apache Software License", "BSD License", "ISC License (ISCL)", "MIT License"),
    "Python Software Foundation License",
}
_MPL = "Mozilla Public License 2.0 (MPL 2.0)"  # binds only who changes its own files
REVIEWED = {  # looked at one by one, under the very licence named here
    "axe-playwright-python": ("unknown", "its LICENSE file is MIT, the axe-core in it MPL-2.0; only the tests use it"),
    "certifi": (_MPL, "used unchanged"),
    "hypothesis": ("MPL-2.0", "used unchanged, only by the tests"),
    "pathspec": (_MPL, "used unchanged, only to build"),
    "tqdm": ("MPL-2.0 AND MIT", "used unchanged"),
}


def licence_of(name: str) -> str:
    """A package's licence as its metadata names it: an SPDX expression, else its classifiers, else a short name."""
    metadata = distribution(name).metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License :: ")]
    named = [c.rpartition(" :: ")[2] for c in classifiers if not c.endswith(("OSI Approved", "DFSG approved"))]
    if named:
        return " AND ".join(sorted(named))  # whether all or any of them holds isn't said
    (text, *more) = (metadata.get("License") or "").strip().splitlines() or [""]
    return "unknown" if more or not text else text


def permissive(licence: str) -> bool:
    """Whether one of the alternatives of an expression is permissive in all its parts; nested ones are for a person."""
    if "(" in licence.replace("(ISCL)", ""):
        return False
    return any(PERMISSIVE.issuperset(choice.split(" AND ")) for choice in licence.split(" OR "))


def problem(name: str, licence: str) -> str | None:
    """Why a package may not be depended on without a look at it."""
    reviewed, _ = REVIEWED.get(name, (None, ""))
    if permissive(licence) or licence == reviewed:
        return None
    return f"{name}: {licence} is neither permissive nor reviewed (tests/support/supply/licences.py)"


def pinned() -> list[str]:
    """The names in constraints.txt."""
    return re.findall(r"^([\w.-]+)==", PINS.read_text(encoding="utf-8"), re.MULTILINE)


def installed(names: Iterable[str]) -> dict[str, str]:
    """Licences by name, of the packages that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = licence_of(name)
        except PackageNotFoundError:
            print(f"{name}: not installed here, so not looked at", file=sys.stderr)
    return found


def main() -> int:
    """Print every licence; 1 where one needs a look."""
    licences = installed(pinned())
    for name, licence in licences.items():
        why = f" (reviewed: {REVIEWED[name][1]})" if name in REVIEWED else ""
        print(f"{name:<26} {licence}{why}")
    problems = [said for name, licence in licences.items() if (said := problem(name, licence))]
    print("\n".join([f"{len(licences)} packages, {len(problems)} whose licence needs a look", *problems]))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
