"""The structure of a package in numbers: rooms (folders), files, functions, arrows between rooms, circles.

python -m tests.support.structure [FOLDER]     of src/plad, or of another package's folder
"""

import argparse
import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[2] / "src/plad"
MAX_FILE, MAX_FUNCTION, MAX_MEDIAN, MAX_MODULES, MAX_ARGUMENTS = 400, 60, 8, 12, 5

IGNORE = re.compile(r"#\s*(?:pyright|type):\s*ignore\b(?!\[[\w, -]+\])|#\s*pyright:\s*(?:basic|standard|report\w+\s*=)")
Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Function:
    """A function or method: `place` is file:line."""

    place: str
    name: str
    lines: int
    arguments: int  # without self, cls, *args and **kwargs


@dataclass(frozen=True)
class Import:
    """One imported module: of the package by its full name, of others by the package's name."""

    place: str
    module: str
    in_function: bool
    for_types: bool  # under TYPE_CHECKING


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str  # dotted
    file: str  # from the package's parent
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.file)

    @property
    def is_package(self) -> bool:
        return self.file.endswith("__init__.py")

    @property
    def room(self) -> str:
        """The folder, dotted."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def at(self, node: ast.AST) -> str:
        return f"{self.file}:{getattr(node, 'lineno', 1)}"


class Structure:
    """What can be counted of a package.

    Args:
        folder: of the package, with its `__init__.py`.
    """

    def __init__(self, folder: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob("*.py")):
            file = path.relative_to(folder.parent)
            name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
            self.modules[name] = Module(name, file.as_posix(), path.read_text(encoding="utf-8"))

    # -- sizes

    @cached_property
    def lines(self) -> int:
        return sum(module.lines for module in self.modules.values())

    @cached_property
    def rooms(self) -> dict[str, list[str]]:
        """Files of every folder, its `__init__.py` left out."""
        rooms: dict[str, list[str]] = {}
        for module in self.modules.values():
            rooms.setdefault(module.room, []).extend([] if module.is_package else [module.name])
        return {room: files for room, files in rooms.items() if files}

    @cached_property
    def functions(self) -> list[Function]:
        return [
            Function(module.at(node), node.name, (node.end_lineno or 0) - node.lineno + 1, _arguments(node))
            for module in self.modules.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]

    @property
    def median_function(self) -> float:
        return median(function.lines for function in self.functions)

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """Places of every class name."""
        classes: dict[str, list[str]] = {}
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef):
                    classes.setdefault(node.name, []).append(module.at(node))
        return classes

    # -- imports

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        """Every import of a module, wherever it stands in it."""
        return {module.name: list(self._imports(module)) for module in self.modules.values()}

    def _imports(self, module: Module) -> Iterator[Import]:
        for node, in_function, for_types in _import_nodes(module.tree):
            if isinstance(node, ast.Import):
                targets = {self._of_package(alias.name) for alias in node.names}
            else:
                base = _base(module, node)
                targets = {self._of_package(f"{base}.{alias.name}") for alias in node.names}
            for target in sorted(targets):
                yield Import(module.at(node), target, in_function, for_types)

    def _of_package(self, dotted: str) -> str:
        """The module that holds a name; for other packages the package."""
        root = next(iter(self.modules)).partition(".")[0]
        if dotted.partition(".")[0] != root:
            return dotted.partition(".")[0]
        while dotted not in self.modules and "." in dotted:
            dotted = dotted.rpartition(".")[0]
        return dotted

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Files of the package that each file imports, for types too."""
        return {
            name: {i.module for i in imports if i.module in self.modules and i.module != name}
            for name, imports in self.imports.items()
        }

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """Rooms that each room imports."""
        arrows: dict[str, set[str]] = {room: set() for room in self.rooms}
        for name, targets in self.graph.items():
            room = self.modules[name].room
            arrows.setdefault(room, set()).update({self.modules[t].room for t in targets} - {room})
        return arrows

    @cached_property
    def file_circles(self) -> list[list[str]]:
        """Files that reach themselves through imports; the lazy public names of the root are no road."""
        root = next(iter(self.modules)).partition(".")[0]
        return circles({name: targets - {root} for name, targets in self.graph.items() if name != root})

    @cached_property
    def room_circles(self) -> list[list[str]]:
        root = next(iter(self.modules)).partition(".")[0]
        return circles({name: targets - {root} for name, targets in self.arrows.items() if name != root})

    def heavy(self, libraries: Sequence[str]) -> set[str]:
        """Files of the package whose import brings one of these libraries along."""
        loaded = {
            name: {i.module for i in imports if not i.in_function and not i.for_types}
            for name, imports in self.imports.items()
        }
        for name, targets in loaded.items():  # importing a.b.c runs a and a.b first
            parts = name.split(".")
            targets |= {".".join(parts[:n]) for n in range(1, len(parts))}
        heavy = set(libraries)
        while more := {name for name, targets in loaded.items() if targets & heavy} - heavy:
            heavy |= more
        return heavy & set(self.modules)

    @property
    def local_imports(self) -> list[Import]:
        """Imports inside functions."""
        return [i for imports in self.imports.values() for i in imports if i.in_function]

    # -- types

    @cached_property
    def any_count(self) -> int:
        """How often the word `Any` stands in the code."""
        return sum(len(re.findall(r"\bAny\b", module.text)) for module in self.modules.values())

    @property
    def loose_ignores(self) -> list[str]:
        """Lines that switch the type checker off without naming a rule, or for a whole file."""
        return [
            f"{module.file}:{number}"
            for module in self.modules.values()
            for number, line in enumerate(module.text.splitlines(), 1)
            if IGNORE.search(line)
        ]

    # -- the limits

    def problems(self) -> dict[str, list[str]]:
        """Everything that passes a limit, under a sentence that names it."""
        return {
            f"files over {MAX_FILE} lines": [
                f"{m.file} {m.lines}" for m in self.modules.values() if m.lines > MAX_FILE
            ],
            f"functions over {MAX_FUNCTION} lines": [
                f"{f.place} {f.name} {f.lines}" for f in self.functions if f.lines > MAX_FUNCTION
            ],
            f"median function over {MAX_MEDIAN} lines": (
                [f"{self.median_function:g}"] if self.median_function > MAX_MEDIAN else []
            ),
            f"rooms of more than {MAX_MODULES} modules": [
                f"{room} {len(files)}" for room, files in self.rooms.items() if len(files) > MAX_MODULES
            ],
            "class names that stand twice": [
                f"{name}: {', '.join(places)}" for name, places in self.classes.items() if len(places) > 1
            ],
            "circles of files": [" -> ".join(circle) for circle in self.file_circles],
            "type checks switched off without naming the rule": self.loose_ignores,
        }

    def numbers(self) -> dict[str, float]:
        """What can be compared before and after a change."""
        return {
            "lines": self.lines,
            "files": len(self.modules),
            "rooms": len(self.rooms),
            "arrows between rooms": sum(map(len, self.arrows.values())),
            "circles of files": len(self.file_circles),
            "circles of rooms": len(self.room_circles),
            "functions": len(self.functions),
            "median lines of a function": self.median_function,
            f"functions over {MAX_FUNCTION} lines": sum(f.lines > MAX_FUNCTION for f in self.functions),
            f"signatures over {MAX_ARGUMENTS} arguments": sum(f.arguments > MAX_ARGUMENTS for f in self.functions),
            "imports inside functions": len({i.place for i in self.local_imports}),
            "Any": self.any_count,
        }


def circles(graph: Graph) -> list[list[str]]:
    """Sets of nodes that reach each other (strongly connected), each in the order in which one imports the next."""
    reach = {node: _reached(graph, node) for node in graph}
    knots = {frozenset({node} | {n for n in reach[node] if node in reach[n]}) for node in graph if node in reach[node]}
    return [_round(graph, sorted(knot)) for knot in sorted(knots, key=sorted)]


def _reached(graph: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node in graph and node not in reached:
            reached.add(node)
            waiting.extend(graph[node])
    return reached


def _round(graph: Graph, knot: Sequence[str]) -> list[str]:
    """The shortest way from the first node of a knot back to itself."""
    ways = [[knot[0]]]
    seen: set[str] = set()
    for way in ways:
        for node in sorted(graph[way[-1]] & set(knot)):
            if node == knot[0]:
                return [*way, node]
            if node not in seen:
                seen.add(node)
                ways.append([*way, node])
    raise AssertionError("a knot has a way back")


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*node.args.posonlyargs, *node.args.args]
    bound = bool(named) and named[0].arg in ("self", "cls")
    return len(named) - bound + len(node.args.kwonlyargs)


def _import_nodes(
    node: ast.AST, in_function: bool = False, for_types: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, in_function, for_types
        else:
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            typing = for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            yield from _import_nodes(child, inside, typing)


def _base(module: Module, node: ast.ImportFrom) -> str:
    """The full name of what a `from` names, dots at its start resolved."""
    if not node.level:
        return node.module or ""
    parts = module.room.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def told(problems: Mapping[str, Sequence[str]]) -> str:
    """Problems as text, those without a place left out."""
    return "".join(
        "\n  ".join([f"\n{name}: {len(places)}", *places]) + "\n" for name, places in problems.items() if places
    )


def main() -> None:
    """Print the numbers, then everything that passes a limit."""
    parser = argparse.ArgumentParser(description="The structure of a package in numbers.")
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE, help="the package's folder")
    structure = Structure(parser.parse_args().folder)
    for name, value in structure.numbers().items():
        print(f"{name:<34} {value:>8,g}")
    print(told(structure.problems()))


if __name__ == "__main__":
    main()
