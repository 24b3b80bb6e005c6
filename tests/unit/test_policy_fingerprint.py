"""A model's fingerprint follows what it computes, not where it lies."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from plad.errors import PolicyError
from plad.policy.fingerprint import folder_fingerprint, model_fingerprint
from plad.policy.load import save_policy
from plad.policy.lora import read_adapter
from plad.rundir.atomic import atomic_dir
from tests.support.tiny_models import tiny_folder, tiny_lora_policy, tiny_policy


def nudge(file: Path) -> None:
    tensors = load_file(file)
    next(iter(tensors.values())).flatten()[0] += 1
    save_file(tensors, file, metadata={"format": "pt"})


def edit_json(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_copy_has_the_same_fingerprint_whatever_lies_beside_the_model(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("a card")
    (tmp_path / "b" / "train.log").write_text("a log")
    assert folder_fingerprint(folder) == folder_fingerprint(tmp_path / "b") == model_fingerprint(str(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_weights_config_and_tokenizer_all_count(file: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "a")
    before = folder_fingerprint(folder)
    if file.endswith(".safetensors"):
        nudge(folder / file)
    else:
        edit_json(folder / file, extra=1)
    assert folder_fingerprint(folder) != before


def test_a_marker_gives_the_same_fingerprint_as_the_files_themselves(tmp_path: Path) -> None:
    policy = tiny_policy()
    with atomic_dir(tmp_path / "a") as staging:
        save_policy(policy, staging)
    marked = folder_fingerprint(tmp_path / "a")
    (tmp_path / "a" / "COMPLETE").unlink()
    assert folder_fingerprint(tmp_path / "a") == marked


def test_a_marker_saves_reading_the_weights(tmp_path: Path) -> None:
    with atomic_dir(tmp_path / "a") as staging:
        save_policy(tiny_policy(), staging)
    before = folder_fingerprint(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"")
    assert folder_fingerprint(tmp_path / "a") == before


def test_a_hub_snapshot_is_its_commit(tmp_path: Path) -> None:
    one = tiny_folder(tmp_path / "m" / "snapshots" / ("a" * 40))
    two = tiny_folder(tmp_path / "m" / "snapshots" / ("b" * 40))
    assert folder_fingerprint(one) != folder_fingerprint(two)


def test_an_adapter_counts_itself_and_its_base_but_not_its_bases_place(tmp_path: Path) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    before = folder_fingerprint(tmp_path / "adapter")
    (tmp_path / "m").rename(tmp_path / "moved")
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "moved"))
    assert folder_fingerprint(tmp_path / "adapter") == before

    edit_json(tmp_path / "adapter" / "adapter_config.json", lora_alpha=16)
    assert (other := folder_fingerprint(tmp_path / "adapter")) != before
    nudge(tmp_path / "moved" / "model.safetensors")
    assert (third := folder_fingerprint(tmp_path / "adapter")) != other
    nudge(tmp_path / "adapter" / "adapter_model.safetensors")
    assert folder_fingerprint(tmp_path / "adapter") != third


def test_fingerprints_and_names_are_resolved_without_torch() -> None:
    modules = "plad.policy.fingerprint, plad.policy.resolve, plad.extras.demo.model"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_json_counts_by_what_it_says_of_the_answers(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "a")
    before = folder_fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=7))
    edit_json(folder / "config.json", transformers_version="99")
    edit_json(folder / "tokenizer_config.json", name_or_path="/elsewhere")
    assert (after := folder_fingerprint(folder)) == before
    assert after.former != before.former
    edit_json(folder / "config.json", rms_norm_eps=0.5)
    assert folder_fingerprint(folder) != before


def test_an_adapter_counts_its_modules_as_a_set_and_is_saved_in_order(tmp_path: Path) -> None:
    save_policy(tiny_lora_policy(tmp_path / "m"), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    before, modules = folder_fingerprint(tmp_path / "adapter"), json.loads(file.read_text())["target_modules"]
    assert len(modules) > 1
    assert modules == sorted(modules)
    edit_json(file, target_modules=modules[::-1], peft_version="99", lora_dropout=0.5)
    assert (after := folder_fingerprint(tmp_path / "adapter")) == before
    assert after.former != before.former
    edit_json(file, target_modules=modules[1:])
    assert folder_fingerprint(tmp_path / "adapter") != before


def test_the_former_fingerprint_is_that_of_plad_0_1_0(tmp_path: Path) -> None:
    """Literal values, made by that version of these two folders."""
    plain, adapter = tmp_path / "plain", tmp_path / "adapter"
    plain.mkdir()
    adapter.mkdir()
    (plain / "config.json").write_text('{"b": 1, "a": 2}')
    (plain / "model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_model.safetensors").write_bytes(b"more")
    config = {"target_modules": ["b", "a"], "base_model_name_or_path": str(plain), "revision": None, "r": 8}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert folder_fingerprint(plain).former == "f1caac2c2761fa50"
    assert folder_fingerprint(adapter).former == "941452f6951b0bc9"


def test_damaged_json_counts_as_it_stands(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "a")
    (folder / "generation_config.json").write_text("{")
    before = folder_fingerprint(folder)
    (folder / "generation_config.json").write_text("[")
    assert folder_fingerprint(folder) != before


@pytest.mark.parametrize("content", [b"\xff\x00", b'{"base', b"[1]", b"{}"])
@pytest.mark.parametrize("read", [folder_fingerprint, read_adapter])
def test_a_damaged_adapter_is_named_with_its_way_out(
    content: bytes, read: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(PolicyError, match=re.escape(str(tmp_path))) as caught:
        read(tmp_path)
    by_hand = "write base_model_name_or_path into adapter_config.json" if content == b"{}" else "save the adapter again"
    assert caught.value.fix == by_hand
    (tmp_path / "COMPLETE").write_text("{}")
    with pytest.raises(PolicyError) as caught:
        read(tmp_path)
    again = f"delete the folder {tmp_path}, then plad run CONFIG makes it again"
    assert caught.value.fix == (by_hand if content == b"{}" else again)
