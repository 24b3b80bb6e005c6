"""Folders that a stage finishes one by one."""

from pathlib import Path

import pytest

from plad.errors import RunDirError
from plad.pipeline.finished import finished_before, keep_counts, save_finished


def make(folder: Path) -> Path:
    def save(staging: Path) -> None:
        (staging / "model.safetensors").write_bytes(bytes(1000))

    save_finished(folder, save, "settings", {"steps": 3})
    return folder


def test_a_finished_folder_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    folder = make(tmp_path / "student")
    assert finished_before(folder, "settings") == {"steps": 3}
    assert finished_before(folder, "other settings") is None
    assert finished_before(tmp_path / "nothing", "settings") is None


def test_weights_may_go_while_the_counts_stay(tmp_path: Path) -> None:
    folder = make(tmp_path / "student")
    for _ in range(2):
        keep_counts(folder)
        assert finished_before(folder, "settings") == {"steps": 3}
        assert {p.name for p in folder.iterdir()} == {"COMPLETE", "made_from.json"}


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "student")
    (folder / "model.safetensors").write_bytes(bytes(999))
    with pytest.raises(RunDirError, match="damaged"):
        finished_before(folder, "settings")
