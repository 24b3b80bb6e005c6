"""Which settings only pace a run: they are listed here, and all others are recorded as what a result depends on."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from plad.config.base import PACES
from plad.config.extras import RewardTraining
from plad.config.messages import sections_of
from plad.config.models import DistillSection, SftSection
from plad.config.pairs import GenerateSection
from plad.config.root import Config
from plad.remote.openai import OpenAIEngine

TRAINING = {"max_tokens", "gradient_checkpointing", "checkpoint_steps"}
ENDPOINT = {
    "api_key_env",
    "concurrency",
    "rpm",
    "tpm",
    "timeout_s",
    "max_attempts",
    "max_wait_s",
    "longest_answer",
    "price",
}
JUDGE = {*ENDPOINT, "max_unjudged", "batch_size"}
PACING = {
    "run": {"dir"},
    "teacher.engine": {
        *ENDPOINT,
        *("mode", "batch", "tokenizer", "context"),
        *("chunk", "gpu_memory_utilization", "tensor_parallel_size"),
    },
    "sft": TRAINING,
    "distill": TRAINING,
    "generate": {"slots", "ledger", "max_failed"},
    "pairs.scorer": JUDGE,
    "evaluate.judges": JUDGE,
    "sweep": {"dir", "trials", "keep"},
}


def paces(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path of the section, field) of everything that paces; what stands below such a field paces with it."""
    for name, info in section.model_fields.items():
        if PACES in info.metadata:
            yield path, name
            continue
        for below in sections_of(info.annotation):
            yield from paces(below, f"{path}.{name}".lstrip("."))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [(Config, PACING), (RewardTraining, {"": {"out", "gradient_checkpointing", "checkpoint_steps"}})],
)
def test_these_settings_pace_and_no_others(schema, expected):
    """A setting that is not marked shapes results: forgetting the mark costs work done again, never a stale result."""
    marked = defaultdict(set)
    for path, name in paces(schema):
        marked[path].add(name)
    assert marked == expected


def test_what_is_recorded_of_answers_and_of_training():
    assert GenerateSection(slots=3, max_failed=0.5).shaping() == {
        "temperature": 0.7,
        "max_new_tokens": 64,
        "samples": 1,
        "student_samples": None,
        "share": 1.0,
    }
    assert SftSection(max_tokens=9).settings("student").shaping(apart=("lora",)) == {
        "epochs": 1.0,
        "learning_rate": 1e-4,
        "batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_length": None,
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "freeze_embeddings": False,
    }
    apart = ("lora", "validation", "objective", "rounds")
    assert DistillSection().shaping(apart=apart) == SftSection().settings("student").shaping(apart=("lora",))


def test_of_a_server_its_address_and_what_is_sent_are_recorded():
    assert OpenAIEngine(base_url="http://localhost:1/v1", rpm=3, mode="batch").shaping() == {
        "base_url": "http://localhost:1/v1",
        "body": {},
        "max_tokens_field": "max_tokens",
        "seed_field": "seed",
        "type": "openai",
        "api": "chat",
    }
