"""The student's model card, read back as the hub reads it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from plad.config.root import Config
from plad.report.card import card_text, hub_name, shown_name
from plad.report.parts.run_facts import RunFacts
from tests.support.written_runs import MANIFEST, calibrated, measured, stages, typed


def config(**sections: Any) -> Config:
    base = {
        "run": {"dir": "runs/x"},
        "data": {"train": "/home/me/secret/train.jsonl", "test": "t.jsonl"},
        "teacher": {"model": "owner/teacher-7b"},
        "student": {"model": "owner/student-1b"},
    }
    return Config.model_validate({**base, **sections})


def facts(metrics: dict[str, Any]) -> RunFacts:
    return RunFacts("run", stages(MANIFEST), metrics=typed(metrics))


def test_card_has_valid_front_matter_results_and_the_teachers_terms() -> None:
    text = card_text(config(), facts(measured()))
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    head.pop("model-index")
    assert head == {
        "license": "other",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["plad", "distillation", "preference-distillation"],
        "base_model": "owner/student-1b",
        "base_model_relation": "finetune",
    }
    assert "check the teacher's terms before you publish" in body
    assert "| Distilled student |" in body
    assert "(72.2 to 100.0" in body
    assert "159 of 236 sampled pairs were kept" in body
    assert "ranking calibration (Eq. 4): beta 1" in body
    assert "/home/me" not in text


def test_the_hubs_own_reader_finds_the_results_with_their_intervals(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card_text(config(), facts(measured())), encoding="utf-8")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.base_model, data.model_name) == ("other", "owner/student-1b", "owner/student-1b")
    assert data.eval_results is not None
    rate, *rouge = data.eval_results
    assert (rate.metric_type, rate.metric_name) == ("win_rate", "Win rate against the human target, judge reference, %")
    assert (rate.metric_value, rate.metric_args) == (100.0, {"n": 10, "interval_95": [72.25, 100.0]})
    assert (rate.dataset_name, rate.dataset_type, rate.dataset_split) == ("t.jsonl", "custom", "test")
    assert [r.metric_type for r in rouge] == ["rouge1", "rouge2", "rougel"]


def test_card_says_how_it_was_measured_and_what_it_loads_with() -> None:
    text = card_text(config(), facts(measured()))
    assert "10 test prompts; percentile bootstrap" in text
    assert "- Judge reference: type reference; rule ROUGE-L F1 against the best reference other than the target" in text
    assert "AutoModelForCausalLM.from_pretrained" in text
    both = card_text(config(), facts(measured()), seq2seq=True)
    assert "AutoModelForSeq2SeqLM.from_pretrained" in both
    assert "pipeline_tag: text2text-generation" in both


def test_card_of_a_teacher_behind_an_endpoint_keeps_its_address_to_itself() -> None:
    engine = {"type": "openai", "base_url": "https://inner.example/v1"}
    text = card_text(config(teacher={"model": "big-4", "engine": engine}), RunFacts("x"))
    assert "Teacher: big-4, as it answers behind an endpoint." in text
    assert "inner.example" not in text


def test_card_tells_what_distillation_did_to_likelihoods() -> None:
    text = card_text(config(), facts(measured() | calibrated(4.0)))
    assert "Likelihoods: Distillation brought likelihood and quality closer together." in text
    assert "| Kendall's tau |" in text


def test_card_before_the_evaluation_says_so() -> None:
    text = card_text(config(), RunFacts("x"))
    assert "Not evaluated yet." in text


def test_card_tells_a_pruned_student_and_sequence_level_distillation() -> None:
    changed = config(
        student={"model": "/models/big.gguf", "init": {"type": "prune", "layers": 10}},
        distill={"objective": {"type": "sft"}, "lora": None},
    )
    text = card_text(changed, RunFacts("x"))
    assert "big.gguf cut down to 10 layers" in text
    assert "sequence-level knowledge distillation" in text
    assert "all weights" in text
    assert "base_model" not in text
    assert "/models" not in text


@pytest.mark.parametrize(
    ("name", "hub", "shown"),
    [
        ("owner/model", "owner/model", "owner/model"),
        ("./owner/model", None, "model"),
        ("/data/models/llm", None, "llm"),
        ("owner/model.gguf", None, "model.gguf"),
        ("plain", None, "plain"),
    ],
)
def test_only_hub_names_are_shown_whole(name: str, hub: str | None, shown: str) -> None:
    assert (hub_name(name), shown_name(name)) == (hub, shown)
