"""Every family of models as teacher and as student, from data to report, and families across."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from plad.data.formats import read_pairs_parquet
from tests.support.command import call
from tests.support.task import STAGES
from tests.support.tiny_models import ENCODER_DECODERS, FAMILIES, WORDS, word_model_folder, word_tokenizer

pytestmark = pytest.mark.usefixtures("quick_collections")


def write_run(folder: Path, teacher: str, student: str, **changes: Any) -> Path:
    """A config and its data: 16 + 2 + 3 rows of a few words."""
    draw = random.Random(1)
    for split, n in (("train", 16), ("validation", 2), ("test", 3)):
        rows = [
            {"prompt": f"{split} {i} " + " ".join(draw.choices(WORDS, k=4)), "references": draw.sample(WORDS, 2)}
            for i in range(n)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config: dict[str, Any] = {
        "run": {"dir": str(folder / "run")},
        "data": {split: f"{split}.jsonl" for split in ("train", "validation", "test")},
        "teacher": {"model": teacher, "lora": {"r": 2}},
        "student": {"model": student, "lora": None},
        "sft": {"batch_size": 4, "learning_rate": 1e-3},
        "generate": {"max_new_tokens": 12, "samples": 2},
        "distill": {"batch_size": 4, "learning_rate": 1e-3, "validation": {"evaluations": 1}},
        "evaluate": {"bootstrap": 50},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def run(config: Path) -> dict[str, Any]:
    """Run everything; the metrics of the evaluation."""
    code, out, err = call("run", config)
    assert code == 0, out + err
    folder = config.parent / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["stages"]) == STAGES
    assert (folder / "report/index.html").stat().st_size > 10_000
    assert "route is not used" not in out + err
    metrics = json.loads((folder / "eval/metrics.json").read_text())
    assert metrics["systems"]["student"]["rougeL"]["n"] == 3
    return metrics


@pytest.mark.parametrize("family", [*FAMILIES, "t5", "bart"])
def test_a_family_runs_from_data_to_report(family: str, tmp_path: Path) -> None:
    teacher, student = (word_model_folder(tmp_path / name, family, seed=i) for i, name in enumerate(("big", "small")))
    run(write_run(tmp_path, teacher, student))
    kind = AutoModelForSeq2SeqLM if family in ENCODER_DECODERS else AutoModelForCausalLM
    assert kind.from_pretrained(tmp_path / "run/student").num_parameters() > 0
    assert f"{kind.__name__}.from_pretrained" in (tmp_path / "run/student/README.md").read_text()


@pytest.mark.parametrize(
    ("teacher", "student", "objective"),
    [("llama", "flan_t5", {"type": "margin"}), ("mt5", "qwen3", {"type": "rank", "sft_weight": 0.5})],
    ids=["decoder-only teacher, T5 student", "mT5 teacher, decoder-only student"],
)
def test_families_and_tokenizers_cross(teacher: str, student: str, objective: dict[str, Any], tmp_path: Path) -> None:
    """Two vocabularies: only texts pass, and a rejected text is scored as the student's own tokens."""
    big = word_model_folder(tmp_path / "big", teacher, seed=1, ends=9)
    small = word_model_folder(tmp_path / "small", student, seed=2, ends=5)
    run(write_run(tmp_path, big, small, distill={"batch_size": 4, "objective": objective}))
    pairs = read_pairs_parquet(tmp_path / "run/pairs.parquet")
    tokenizer = word_tokenizer(5)
    assert pairs
    for pair in pairs:
        assert tokenizer.decode(pair.rejected_token_ids, skip_special_tokens=True) == pair.rejected
        assert pair.rejected_token_ids[-1] in range(2, 7)
