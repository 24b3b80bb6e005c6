"""The type of a student's weights: the one it was trained in, or the one that is asked for."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from plad.config.models import LoraSection, ModelSection, TrainSettings
from plad.extras.export.gguf import write_gguf
from plad.objectives.plad import RankObjective
from plad.policy.load import load_policy, merge_lora, save_policy
from plad.rundir.atomic import atomic_dir, verify_dir
from plad.rundir.directory import open_run
from plad.scoring.score import Route
from plad.train.run import TrainingJob, train_policy, trainable
from tests.support.command import call
from tests.support.tiny_models import tiny_folder, tiny_policy
from tests.support.training_runs import Emitting, groups

HALF = [torch.bfloat16, torch.float16]


def types(folder: Path) -> set[torch.dtype]:
    return {t.dtype for file in folder.glob("*.safetensors") for t in load_file(file).values()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with open_run(tmp_path / "run") as run, atomic_dir(run / "student") as folder:
        policy = tiny_policy()
        save_policy(policy, folder)
        policy.model.save_pretrained(folder, max_shard_size="50KB")
        (folder / "model.safetensors").unlink()
    assert (tmp_path / "run/student/model.safetensors.index.json").is_file()
    return tmp_path / "run"


@pytest.mark.parametrize("lora", [None, LoraSection(dropout=0.0)])
def test_a_student_trained_in_bfloat16_is_saved_so(tmp_path: Path, lora: LoraSection | None) -> None:
    section = ModelSection(model=str(tiny_folder(tmp_path / "base")), dtype="bfloat16")
    settings = TrainSettings(learning_rate=1e-2, batch_size=8)
    policy = trainable(load_policy(section), lora, settings, seed=1)
    job = {"stage": "t", "groups": groups(), "objective": RankObjective(), "route": Route.PLAIN, "seed": 1}
    log: Any = Emitting(lambda _: None)
    train_policy(policy, TrainingJob(**job, settings=settings, folder=tmp_path / "checkpoints", log=log))
    save_policy(merge_lora(policy), tmp_path / "student")
    assert types(tmp_path / "student") == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", HALF)
def test_a_folder_is_written_in_the_type_that_is_asked_for(run: Path, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    before = {file.name: file.read_bytes() for file in (run / "student").iterdir()}
    assert call("export", run, "--to", "merged", "--dtype", name)[0] == 0
    out = run / "export/merged"
    verify_dir(out)
    assert types(out) == {dtype}
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == dtype
    for key, weight in tiny_policy().model.state_dict().items():
        assert weight.to(dtype).equal(model.state_dict()[key]), key
    assert {file.name: file.read_bytes() for file in (run / "student").iterdir()} == before


def test_a_gguf_file_is_written_in_the_type_that_is_asked_for(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run, atomic_dir(run / "student") as folder:
        save_policy(tiny_policy(), folder)
    assert call("export", tmp_path / "run", "--to", "gguf", "--dtype", "bfloat16")[0] == 0
    read = gguf.GGUFReader(tmp_path / "run/export/student.gguf")
    kinds = {t.tensor_type.name for t in read.tensors if len(t.shape) > 1}
    assert kinds == {"BF16"}
    assert read.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_BF16
    write_gguf(tmp_path / "run/student", tmp_path / "full.gguf", name="x")
    assert {t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "full.gguf").tensors} == {"F32"}


def test_an_unknown_type_is_refused(run: Path) -> None:
    assert call("export", run, "--to", "merged", "--dtype", "int8")[0] == 2
