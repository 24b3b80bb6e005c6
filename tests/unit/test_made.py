"""Folders that a stage finishes one by one."""

from pathlib import Path

import pytest

from plad.errors import RunDirError
from plad.pipeline.made import keep_counts, made_before, sign
from plad.rundir.directory import atomic_dir


def make(folder: Path) -> Path:
    with atomic_dir(folder) as staging:
        (staging / "model.safetensors").write_bytes(bytes(1000))
        sign(staging, "settings", {"steps": 3})
    return folder


def test_a_finished_folder_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    folder = make(tmp_path / "student")
    assert made_before(folder, "settings") == {"steps": 3}
    assert made_before(folder, "other settings") is None
    assert made_before(tmp_path / "nothing", "settings") is None


def test_weights_may_go_while_the_counts_stay(tmp_path: Path) -> None:
    folder = make(tmp_path / "student")
    for _ in range(2):
        keep_counts(folder)
        assert made_before(folder, "settings") == {"steps": 3}
        assert {p.name for p in folder.iterdir()} == {"COMPLETE", "made_from.json"}


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "student")
    (folder / "model.safetensors").write_bytes(bytes(999))
    with pytest.raises(RunDirError, match="damaged"):
        made_before(folder, "settings")
