"""Sections of several kinds: found by their `type`, in plad and in other packages."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from plad.config.base import PACES, Section
from plad.config.kinds import Kind


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
