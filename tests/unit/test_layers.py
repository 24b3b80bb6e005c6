"""What may import what."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def imported_modules(file: Path) -> set[str]:
    """Every module that a file imports from, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ["unit", "paper", "invariants", "faults", "e2e"])
def test_what_tests_share_stands_in_support(room: str) -> None:
    """No test module imports another one; they share what `tests/support` holds."""
    for file in (TESTS / room).rglob("*.py"):
        shared = {name for name in imported_modules(file) if name.startswith("tests.")}
        assert {name for name in shared if not name.startswith("tests.support.")} == set(), file
