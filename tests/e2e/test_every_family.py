"""Every family of models as teacher and as student, from data to report, and families across."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from plad.data.formats import read_pairs_parquet
from tests.helpers import ENCODER_DECODERS, FAMILIES, tiny_folder
from tests.unit.test_cli import call

STAGES = ["data", "sft", "generate", "pair", "distill", "baselines", "evaluate", "report"]
WORDS = ("one", "two", "red", "blue", "sun", "moon", "cat", "dog")


pytestmark = pytest.mark.usefixtures("quick_collections")


def word_tokenizer(ends: int = 6, *, adds_eos: bool = False) -> PreTrainedTokenizerFast:
    """Words, and several tokens that end an answer: a random model ends its answers by itself."""
    special = ["<pad>", "<s>", "</s>", *(f"</{i}>" for i in range(ends - 1)), "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    if adds_eos:
        backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="<unk>",
        extra_special_tokens=special[3:-1],
    )


def model_folder(folder: Path, family: str, *, seed: int, ends: int = 6, chat_template: str | None = None) -> str:
    tokenizer = word_tokenizer(ends, adds_eos=family in ENCODER_DECODERS)
    tokenizer.chat_template = chat_template
    tiny_folder(folder, family, tokenizer=tokenizer, seed=seed, eos=list(range(2, 2 + ends)))
    return str(folder)


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
    teacher, student = (model_folder(tmp_path / name, family, seed=i) for i, name in enumerate(("big", "small")))
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
    big = model_folder(tmp_path / "big", teacher, seed=1, ends=9)
    small = model_folder(tmp_path / "small", student, seed=2, ends=5)
    run(write_run(tmp_path, big, small, distill={"batch_size": 4, "objective": objective}))
    pairs = read_pairs_parquet(tmp_path / "run/pairs.parquet")
    tokenizer = word_tokenizer(5)
    assert pairs
    for pair in pairs:
        assert tokenizer.decode(pair.rejected_token_ids, skip_special_tokens=True) == pair.rejected
        assert pair.rejected_token_ids[-1] in range(2, 7)
