"""The head of a model card, as the hub reads it: licence, base model, data, results."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from plad.config.root import Config
from plad.evaluate.run import STUDENT
from plad.report.wording import METRICS
from plad.text import redact

TAGS = ["plad", "distillation", "preference-distillation"]


def hub_name(name: str) -> str | None:
    """`owner/name` if it can be one; None for folders and files of this machine."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(".") or name.endswith(".gguf"):
        return None
    return None if Path(name).exists() else name


def shown_name(name: str) -> str:
    """A model or data file as a stranger may see it: the hub name, or the last part of a path."""
    return hub_name(name) or Path(name).name or name


def front_matter(config: Config, metrics: Mapping[str, Any] | None, *, seq2seq: bool = False) -> str:
    """The YAML between the card's rules.

    Args:
        metrics: contents of eval/metrics.json; its figures of the student stand under `model-index`.
        seq2seq: whether the student is an encoder-decoder model.
    """
    base = hub_name(config.student.model)
    dataset = hub_name(config.data.train.partition(":")[0])
    optional = {"base_model": base, "datasets": [dataset] if dataset else None}
    data = ModelCardData(
        license="other",
        library_name="transformers",
        pipeline_tag="text2text-generation" if seq2seq else "text-generation",
        tags=TAGS,
        **{k: v for k, v in optional.items() if v},  # type: ignore[arg-type]
        **({"base_model_relation": "finetune"} if base else {}),
        **_results(config, metrics),
    )
    return f"---\n{redact(data.to_yaml())}\n---"


def _results(config: Config, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    if metrics is None or STUDENT not in metrics["systems"]:
        return {}
    student = metrics["systems"][STUDENT]
    found = [("win_rate", f"Win rate against the human target, judge {j}", e) for j, e in student["win_rate"].items()]
    found += [(m.lower(), f"{name} F1", student[m]) for m, name in METRICS.items() if m != "words" and m in student]
    test = config.data.test.partition(":")[0] if config.data.test else "test"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=hub_name(test) or "custom",
            dataset_name=shown_name(test),
            dataset_split="test",
            metric_type=kind,
            metric_name=f"{name}, %",
            metric_value=round(100 * e["value"], 2),
            metric_args={"n": e["n"], **_interval(e)},
        )
        for kind, name, e in found
        if e.get("value") is not None
    ]
    return {"model_name": shown_name(config.student.model), "eval_results": results} if results else {}


def _interval(e: Mapping[str, Any]) -> dict[str, list[float]]:
    if e.get("low") is None or e.get("high") is None:
        return {}
    return {"interval_95": [round(100 * e["low"], 2), round(100 * e["high"], 2)]}
