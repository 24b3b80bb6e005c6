"""The structure of the code: sizes, names, imports; `python -m tests.support.structure` prints the numbers."""

import ast
from pathlib import Path

import pytest

from tests.support.structure import PACKAGE, Structure, told

TESTS = Path(__file__).parents[1]

HEAVY = {  # what a function may import, since at the top of a file it would cost every command its time
    "torch": "2 s",
    "transformers": "1 s, and torch",
    "peft": "5 s, with torch and transformers",
    "accelerate": "2 s, with torch",
    "trl": "with all of these",
    "datasets": "1 s, with pandas",
    "safetensors": "its torch half brings torch",
    "scipy": "1 s",
    "matplotlib": "1 s",
    "pyarrow": "0.2 s",
    "huggingface_hub": "its HTTP client, where nothing is asked of the hub",
    "httpx2": "that client",
    "rouge_score": "1 s, with nltk",
    "rich": "0.1 s, and `plad --help` shows no table",
    "pydantic": "0.2 s, and `plad --help` reads no settings",
}
OPTIONAL = {  # what an extra installs: `pip install plad[...]`
    "aiohttp": "api",
    "truststore": "api",
    "gguf": "gguf",
    "vllm": "vllm",
    "optuna": "tune",
}

LINES = 35_700  # what stands; to raise it is a decision, to be made with the features that cost it


@pytest.fixture(scope="module")
def plad() -> Structure:
    return Structure(PACKAGE)


def test_no_limit_is_passed(plad: Structure) -> None:
    """Sizes of files, functions and rooms, names of classes, circles of files, exceptions from the type checker."""
    assert not any((problems := plad.problems()).values()), told(problems)


def test_the_code_stays_small(plad: Structure) -> None:
    assert plad.lines <= LINES


def test_functions_import_what_is_heavy_and_nothing_else(plad: Structure) -> None:
    """Modules of plad are heavy where they bring such a library along; the command line must start at once."""
    heavy = plad.heavy(list(HEAVY)) | HEAVY.keys() | OPTIONAL.keys()
    light = [f"{i.place} {i.module}" for i in plad.local_imports if i.module not in heavy and "/cli/" not in i.place]
    assert light == [], told({"imports inside functions": light})


def _program(file: Path) -> tuple[str, ...]:
    return ("tests.faults.chaos",) if file.parent.name == "chaos" else ()


@pytest.mark.parametrize("room", ["unit", "paper", "invariants", "faults", "e2e"])
def test_what_tests_share_stands_in_support(room: str) -> None:
    """No test module imports another one; the parts of the harness that searches for faults are one program."""
    for file in (TESTS / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                assert (node.module or "").startswith(("tests.support.", *_program(file))), f"{file}:{node.lineno}"
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}:{node.lineno}"


def test_support_is_a_room_like_any_other() -> None:
    for folder in (TESTS / "support", TESTS / "support/servers"):
        assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= 12


# -- the counting itself, on a made-up package

FILES = {
    "__init__.py": "from house.roof import top\n",
    "cellar.py": "import torch\n\nclass Barrel:\n    pass\n",
    "roof/__init__.py": "",
    "roof/top.py": (
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING, Any\n"
        "if TYPE_CHECKING:\n    from house.stairs import Step\n\n"
        "class Tile:\n"
        "    def lay(self, a, b, *, c: Any, d=0, e=0, **more) -> Step:\n"
        "        import json.decoder, house.cellar\n"
        "        from ..attic import (\n            Barrel,\n        )\n"
        "        def nail():\n            return 1\n"
        "        return nail()\n\n"
        "def cover(a, b, c, d, e, f): return a  # pyright: ignore\n"
        "x: int = ''  # type: ignore[assignment]\n"
        "y: int = ''  # pyright: ignore[reportA, reportB]  # the library has no types\n"
    ),
    "stairs.py": "from house import attic\n\nclass Step:\n    def up(self):\n        pass\n",
    "attic.py": "import house.roof.top\nfrom house.cellar import Barrel as B\n\nclass Barrel(B):\n    pass\n",
    "lone.py": "# pyright: basic\n",
}


@pytest.fixture
def house(tmp_path: Path) -> Structure:
    for name, text in FILES.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text)
    return Structure(tmp_path / "house")


def test_rooms_files_and_lines_are_counted(house: Structure) -> None:
    assert house.rooms == {
        "house": ["house.attic", "house.cellar", "house.lone", "house.stairs"],
        "house.roof": ["house.roof.top"],
    }
    assert house.lines == sum(text.count("\n") for text in FILES.values())


def test_functions_count_lines_and_arguments_but_not_self(house: Structure) -> None:
    """`lay` spans 8 lines and takes a, b, c, d, e; `nail` is a function of its own."""
    assert {f.name: (f.lines, f.arguments) for f in house.functions} == {
        "lay": (8, 5),
        "nail": (2, 0),
        "cover": (1, 6),
        "up": (2, 0),
    }
    assert house.median_function == 2
    assert house.numbers()["signatures over 5 arguments"] == 1


def test_imports_are_resolved_to_files_wherever_they_stand(house: Structure) -> None:
    """TYPE_CHECKING, functions, several names, relative ones; a name that is no file belongs to its file."""
    imports = [(i.module, i.in_function, i.for_types) for i in house.imports["house.roof.top"]]
    assert imports == [
        ("__future__", False, False),
        ("typing", False, False),
        ("house.stairs", False, True),
        ("house.cellar", True, False),
        ("json", True, False),
        ("house.attic", True, False),
    ]
    assert house.graph["house.stairs"] == {"house.attic"}
    assert house.numbers()["imports inside functions"] == 2
    assert house.arrows == {"house": {"house.roof"}, "house.roof": {"house"}}


def test_a_circle_counts_types_and_functions_and_is_told_once(house: Structure) -> None:
    """attic imports top, top imports attic in a function; top imports stairs for types, stairs imports attic."""
    assert house.file_circles == [["house.attic", "house.roof.top", "house.attic"]]
    assert len(house.room_circles) == 0  # the root of a package is no room to come back to


def test_what_brings_a_library_along_is_heavy(house: Structure) -> None:
    """attic imports cellar, the rest imports it only inside functions or not at all."""
    assert house.heavy(["torch"]) >= {"house.cellar", "house.attic", "house.stairs"}
    assert "house.lone" not in house.heavy(["json"])


def test_every_limit_finds_what_passes_it(house: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in (("MAX_FILE", 17), ("MAX_FUNCTION", 7), ("MAX_MEDIAN", 1), ("MAX_MODULES", 3)):
        monkeypatch.setattr(f"tests.support.structure.{limit}", value)
    assert house.problems() == {
        "files over 17 lines": ["house/roof/top.py 18"],
        "functions over 7 lines": ["house/roof/top.py:7 lay 8"],
        "median function over 1 lines": ["2"],
        "rooms of more than 3 modules": ["house 4"],
        "class names that stand twice": ["Barrel: house/attic.py:4, house/cellar.py:3"],
        "circles of files": ["house.attic -> house.roof.top -> house.attic"],
        "type checks switched off without naming the rule": ["house/lone.py:1", "house/roof/top.py:16"],
    }
