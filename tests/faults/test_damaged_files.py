"""Every file of a run, damaged in every way, read by every command: one line that names it, never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from plad.data.formats import write_pairs_parquet
from plad.pipeline.stage import STAGES
from plad.records import Pair
from plad.rundir.atomic import atomic_dir, write_json, write_text
from tests.support.command import call
from tests.support.written_runs import BAD, EXAMPLES, GOOD, write_full_run


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def not_utf8(file: Path) -> None:
    file.write_bytes(b'{"a": "\xff\xfe"}\n')


def a_list(file: Path) -> None:
    file.write_text("[1, 2]\n")


def nulls(file: Path) -> None:
    """Every value of an object is null, and every one of those inside."""
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    except ValueError:
        rows = []
    row = rows[0] if rows and isinstance(rows[0], dict) else {"schema": 1, "stages": {"data": None}, "systems": None}
    text = {k: v if k == "schema" else None for k, v in row.items()} | {"stages": {"data": None}}
    file.write_text(json.dumps(text) + "\n")


def wrong_types(file: Path) -> None:
    file.write_text(
        json.dumps(
            {"schema": 1, "stages": [3], "id": 5, "prompt": 7, "references": 1, "answers": 2, "systems": 4, "run": "x"}
        )
        + "\n"
    )


def nested(file: Path) -> None:
    file.write_text("[" * 100_000 + "\n")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 40)


DAMAGES = (empty, cut, not_utf8, a_list, nulls, wrong_types, nested, folder, binary)
FILES = (
    "manifest.json",
    "config.resolved.json",
    "config.yaml",
    "metrics.jsonl",
    "data/test.jsonl",
    "pairs.parquet",
    "student/COMPLETE",
    "eval/metrics.json",
    "eval/answers.jsonl",
    "eval/judgements.parquet",
    "generations.sqlite",
    "run.lock",
    "run.log",
)
_NOT_NAMED = (("student/COMPLETE", folder),)  # a folder without its marker is none yet
ONE_RUN = (
    ("status",),
    ("show", "pairs"),
    ("show", "generations"),
    ("show", "judgements"),
    ("report", "--terminal"),
    ("export", "--to", "trl"),
    ("export", "--to", "merged"),
    ("ledger",),
    ("compare",),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("written") / "run"
    write_full_run(run, EXAMPLES, {"teacher": GOOD, "student_sft": BAD, "student": GOOD})
    pairs = [Pair(f"e{i:02}#0-0", "prompt", "a", "b", "teacher", "student_sft") for i in range(20)]
    write_pairs_parquet(run / "pairs.parquet", pairs)
    with atomic_dir(run / "student") as staging:
        write_json(staging / "config.json", {"is_encoder_decoder": False})
    for name in ("config.yaml", "run.lock", "run.log"):
        write_text(run / name, "pid 1 on nowhere")
    return run


def config_of(folder: Path, run: Path) -> Path:
    """A config whose stages have nothing to train."""
    for name in ("train", "test"):
        rows = "".join(json.dumps({"prompt": f"{name} {i}", "references": ["r"]}) + "\n" for i in range(8))
        (folder / f"{name}.jsonl").write_text(rows)
    teacher = "{model: m, sft: false, engine: {type: file, path: answers.jsonl}}"
    data = "data: {train: train.jsonl, test: test.jsonl}"
    text = f"run: {{dir: {run}}}\n{data}\nteacher: {teacher}\nstudent: {{model: s}}\n"
    (folder / "config.yaml").write_text(text)
    return folder / "config.yaml"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_no_command_shows_a_traceback(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(written, run)
    damage(run / name)
    config = config_of(tmp_path, run)
    for stage in STAGES:
        monkeypatch.setattr(stage.work, "inputs", lambda _: {})
        monkeypatch.setattr(stage.work, "run", lambda *_: {})
    commands = [(first, run, *more) for first, *more in ONE_RUN]
    commands += [("compare", run, written, "--html", tmp_path / "page.html")] if "metrics" in name else []
    commands += [("validate", config), ("run", config, "--clean", "data")]
    named = 0
    for command in commands:
        code, out, err = call(*command)
        said = f"{command}\n{err}"
        assert code in (0, 2), said
        assert "Traceback" not in out + err, said
        assert "unexpected" not in err, said
        named += code == 2 and Path(name).name in err
        if command[0] not in ("run", "validate") and code == 2:
            first, *ways = err.splitlines()
            assert first.startswith("error: "), said
            assert all(way.startswith("  -> ") for way in ways), said
    harmless = name in ("config.yaml", "run.lock", "run.log", "metrics.jsonl") or (name, damage) in _NOT_NAMED
    assert named or harmless or damage in (nulls, wrong_types, cut), named


def test_a_half_generation_config_is_one_line_of_validate(tmp_path: Path) -> None:
    from tests.support.task import write_task

    config = write_task(tmp_path)
    for damage in (cut, a_list, not_utf8, empty):
        damage(tmp_path / "model/generation_config.json")
        code, out, err = call("validate", config)
        assert code == 2, err
        assert "generation_config.json can't be read" in err
        assert "Traceback" not in out + err
