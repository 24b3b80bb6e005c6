"""eval/metrics.json: one reader, one writer, and the file as it always was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plad.errors import RunDirError
from plad.evaluate.metrics import FILE, Metrics
from plad.records import Example
from tests.support.written_runs import write_full_run

WRITTEN = Path(__file__).parents[1] / "data/metrics.json"  # by `write_full_run`, before there were types
EXAMPLES = [
    Example("a", "Say red, green or blue", ("red green", "blue sky", "blue sea")),
    Example("b", "What is up?", ("blue sky", "blue sky")),
    Example("c", "Count", ("one two",)),
    Example("d", "Colour", ("red", "blue sky")),
]
ANSWERS = {
    "teacher": ["blue sea", "blue sky", "one two", "blue sky"],
    "student_sft": ["red", "red one", "two", "red"],
    "student": ["blue sea", "red", "red", "blue sky over all"],
    "kd": ["blue", "sky", "one", "a much longer answer than the others"],
}


def copied(tmp_path: Path) -> Path:
    (tmp_path / "eval").mkdir()
    shutil.copy(WRITTEN, tmp_path / FILE)
    return tmp_path


def test_what_is_read_is_written_byte_for_byte(tmp_path: Path) -> None:
    metrics = Metrics.read(copied(tmp_path))
    metrics.write(tmp_path / "again")
    assert (tmp_path / "again" / FILE).read_bytes() == WRITTEN.read_bytes()


def test_an_evaluation_writes_the_same_keys_in_the_same_order_with_the_same_values(tmp_path: Path) -> None:
    write_full_run(tmp_path, EXAMPLES, ANSWERS)
    flat(json.loads((tmp_path / FILE).read_text()), json.loads(WRITTEN.read_text()))


def flat(ours: Any, theirs: Any, place: str = "") -> None:
    """Equal, keys in order; of numbers the last bits may differ between machines."""
    assert type(ours) is type(theirs), place
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), place
        for key in ours:
            flat(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), place
        for i, both in enumerate(zip(ours, theirs, strict=True)):
            flat(*both, f"{place}.{i}")
    else:
        assert ours == (pytest.approx(theirs, abs=1e-9) if isinstance(theirs, float) else theirs), place


def test_figures_have_names_and_types(tmp_path: Path) -> None:
    metrics = Metrics.read(copied(tmp_path))
    rate = metrics.systems["student"].win_rate["reference"]
    assert (rate.n, rate.wins, rate.losses, rate.unjudged) == (3, 2, 1, 1)
    difference = metrics.difference("student", "student_sft")
    assert difference is not None
    assert difference.win_rate["reference"].p_holm == 1.0
    assert metrics.difference("teacher", "kd") is None
    assert metrics.judges["opinion"].position_bias.prefers_first == 17
    assert metrics.calibration.judges["reference"].after.pairs == 8


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ("{}", "systems"),
        ('{"n": "many", "systems": {}}', "n: "),
        ('{"systems": {"student": {"win_rate": {"j": {"value": "high"}}}}}', "systems.student.win_rate.j.value: "),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunDirError, match="is damaged") as e:
        Metrics.read(tmp_path)
    assert what in e.value.what
    assert e.value.where == str(tmp_path / FILE)


def test_a_run_without_figures_was_not_evaluated(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="not evaluated yet"):
        Metrics.read(tmp_path)
