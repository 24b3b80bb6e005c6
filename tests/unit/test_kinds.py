"""Sections of several kinds: found by their `type`, in plad and in other packages."""

import sys
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from plad.config.base import PACES, Section
from plad.config.kinds import Kind
from plad.errors import ConfigError


class Shape(Kind):
    group: ClassVar[str] = "plad.tests.shapes"
    homes: ClassVar[tuple[str, ...]] = ()


class Circle(Shape):
    type: Literal["circle"] = "circle"
    radius: float = Field(default=1.0, gt=0)


class Ring(Circle):
    type: Literal["ring"] = "ring"  # type: ignore[assignment]
    sizes: tuple[int, ...] = ()


class Drawing(Section):
    shape: Shape = Circle()
    more: tuple[Shape, ...] = ()


def test_a_type_names_its_kind_and_defaults_hold() -> None:
    drawing = Drawing.model_validate_json('{"shape": {"type": "ring", "sizes": [1, 2]}, "more": [{"type": "circle"}]}')
    assert drawing == Drawing(shape=Ring(sizes=(1, 2)), more=(Circle(),))
    assert Drawing().shape == Circle()


def test_what_is_dumped_is_the_whole_kind_and_reads_back() -> None:
    drawing = Drawing(shape=Ring(radius=2.0, sizes=(3,)))
    dumped = drawing.model_dump(mode="json")
    assert dumped == {"shape": {"type": "ring", "radius": 2.0, "sizes": [3]}, "more": []}
    assert Drawing.model_validate_json(drawing.model_dump_json()) == drawing
    assert drawing.model_dump(mode="json", exclude={"shape": {"sizes"}})["shape"] == {"type": "ring", "radius": 2.0}


def test_errors_stand_where_they_are() -> None:
    with pytest.raises(ValidationError) as error:
        Drawing.model_validate_json(
            '{"shape": {"type": "circle", "radius": -1, "colour": 1}, "more": [{"type": "ring", "sizes": ["1"]}]}',
            strict=True,
        )
    places = {(e["loc"], e["type"]) for e in error.value.errors()}
    assert places == {
        (("shape", "radius"), "greater_than"),
        (("shape", "colour"), "extra_forbidden"),
        (("more", 0, "sizes", 0), "int_type"),
    }


@pytest.mark.parametrize("shape", ['{"type": "square"}', "{}", '{"type": 3}'])
def test_an_unknown_type_is_answered_with_those_there_are(shape: str) -> None:
    with pytest.raises(ValidationError, match="'circle', 'ring'"):
        Drawing.model_validate_json(f'{{"shape": {shape}}}')
    with pytest.raises(ValidationError, match="should be an object"):
        Drawing.model_validate_json('{"shape": 3}')


class Worker(Section):
    seed: int = 0
    threads: Annotated[int, PACES] = Field(default=1, gt=0)


class Factory(Section):
    boss: Worker = Worker()
    workers: tuple[Worker, ...] = (Worker(), Worker(seed=1))


def test_what_paces_is_no_part_of_what_shapes() -> None:
    assert Factory().shaping() == {"boss": {"seed": 0}, "workers": [{"seed": 0}, {"seed": 1}]}
    assert Factory(boss=Worker(threads=3)).shaping() == Factory().shaping()
    assert Factory(boss=Worker(seed=3)).shaping() != Factory().shaping()
    with pytest.raises(ValidationError, match="threads"):
        Worker(threads=0)


def test_a_subclass_without_a_type_of_its_own_is_no_kind() -> None:
    class Helper(Circle):
        pass

    assert Shape.named("circle") is Circle
    assert Helper not in Shape.kinds().values()


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, entries: str) -> None:
    """A package as another author would ship it."""
    (folder / "foreign_shapes.py").write_text(source)
    (folder / "foreign_shapes-1.dist-info").mkdir()
    (folder / "foreign_shapes-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: foreign_shapes\nVersion: 1"
    )
    (folder / "foreign_shapes-1.dist-info/entry_points.txt").write_text(f"[plad.tests.shapes]\n{entries}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "foreign_shapes", raising=False)


def test_a_broken_package_is_named_where_it_is_asked_for_and_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _install(tmp_path, monkeypatch, "import not_installed_thing", "star = foreign_shapes:Star")
    with pytest.raises(ConfigError, match=r"ModuleNotFoundError.*not_installed_thing") as error:
        Shape.named("star")
    assert "star = foreign_shapes:Star" in str(error.value)
    with pytest.raises(ValidationError, match="'circle', 'ring'"):
        Drawing.model_validate_json('{"shape": {"type": "square"}}')
    assert "foreign_shapes:Star" in caplog.text


def test_a_class_without_all_its_methods_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from abc import abstractmethod\nfrom typing import Literal\nfrom plad.config.kinds import Kind\n"
        "class Half(Kind):\n    type: Literal['half'] = 'half'\n    @abstractmethod\n    def area(self): ...\n"
    )
    _install(tmp_path, monkeypatch, source, "half = foreign_shapes:Half")
    with pytest.raises(ConfigError, match="lacks area"):
        Shape.named("half")


def test_a_kind_of_another_package_must_derive_from_what_a_run_works_with() -> None:
    class Working(Shape):
        pass

    class Square(Working):
        type: Literal["square"] = "square"

    assert Square().derived(Working) == Square()
    with pytest.raises(ConfigError, match="type circle: Circle is no Working") as error:
        Circle().derived(Working)
    assert "derive it from" in str(error.value)
