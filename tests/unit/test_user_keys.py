"""What a refusal calls the things that a stage depends on: the keys that the user wrote, or would write."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from plad.config.file import load_config
from plad.errors import RunDirError
from plad.pipeline.keys import user_keys
from plad.pipeline.resources import Resources
from plad.pipeline.stage import STAGES
from plad.rundir.directory import open_run
from tests.support.task import write_task

OTHER = (
    "sft.student.learning_rate=0.1",
    "distill.lora={r: 2}",
    "evaluate.judges=[{type: reference}]",
    "evaluate.baselines=[seqkd]",
    "pairs.scorer={type: reference}",
    "pairs.real_share=0.5",
)


@pytest.mark.parametrize(
    ("stage", "path", "key"),
    [
        ("data", "seed", "run.seed"),
        ("data", "files.train", "content of data.train"),
        ("sft", "teacher.sft.epochs", "sft.epochs"),
        ("sft", "student.sft.learning_rate", "sft.student.learning_rate"),
        ("sft", "teacher.sft.lora.r", "teacher.lora.r"),
        ("sft", "teacher.settings.prompt.format", "teacher.prompt.format"),
        ("sft", "student.weights", "content of student.model"),
        ("sft", "teacher.validation.rows", "sft.validation.rows"),
        ("sft", "teacher.validation.judge", "evaluate.judges"),
        ("sft", "teacher.validation.max_new_tokens", "generate.max_new_tokens"),
        ("sft", "data", "stage data"),
        ("generate", "teacher.base_url", "teacher.engine.base_url"),
        ("generate", "teacher.model", "teacher.model"),
        ("generate", "teacher.weights", "content of teacher.model"),
        ("pair", "scorer.model", "pairs.scorer.model"),
        ("distill", "lora.r", "distill.lora.r"),
        ("distill", "validation.evaluations", "distill.validation.evaluations"),
        ("distill", "distill.objective.beta", "distill.objective.beta"),
        ("baselines", "settings.epochs", "distill.epochs"),
        ("evaluate", "max_new_tokens", "generate.max_new_tokens"),
    ],
)
def test_a_path_of_the_inputs_is_named_as_the_user_would(stage: str, path: str, key: str, tmp_path: Path) -> None:
    assert user_keys(load_config(write_task(tmp_path), OTHER), stage)(path) == key


def leaves(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name in value:
            yield from leaves(value[name], f"{path}.{name}" if path else str(name))
    else:
        yield path


def test_every_input_of_every_stage_is_a_key_of_the_config_or_named_in_words(tmp_path: Path) -> None:
    config = load_config(write_task(tmp_path), OTHER)
    known: dict[str, Any] = config.model_dump(mode="json")
    with open_run(tmp_path / "run") as run:
        for stage in STAGES:
            own = stage.work.inputs(Resources(config, run, tmp_path))
            for path in leaves(json.loads(json.dumps(own, default=str))):
                key = user_keys(config, stage.name)(path)
                if key.startswith(("content of ", "--")) or ".baselines." in key or ".judges" in key:
                    continue
                node: Any = known
                for name in key.split("."):
                    assert isinstance(node, Mapping), (stage.name, path, key)
                    assert name in node or "scorer" in key or "lora" in key or "sft" in key, (stage.name, path, key)
                    node = node.get(name, {})


def test_a_refusal_says_what_would_be_made_again_and_how_long_that_took(tmp_path: Path) -> None:
    with open_run(tmp_path / "r") as run:
        for stage, seconds in (("data", 1), ("sft", 60), ("generate", 30.4), ("pair", 1)):
            run.finish(stage, {"seed": 0}, {}, seconds)
        with pytest.raises(RunDirError, match=r"stage sft was made with other settings: run.seed 0 -> 1") as e:
            run.is_done("sft", {"seed": 1}, ("generate", "pair", "distill"), {"seed": "run.seed"}.__getitem__)
        assert "--clean sft makes sft, generate, pair again, which took 1 min 31 s" in str(e.value)
