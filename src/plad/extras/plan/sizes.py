"""Memory of each training stage and disk of the whole run, from model folders that are on this machine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plad.config.models import LoraSection, TrainSettings
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.sources import locate
from plad.errors import PladError
from plad.extras.plan.answers import distill_rows
from plad.extras.plan.memory import Model, disk, need, read_model, trained_weights
from plad.extras.plan.tokens import Counter
from plad.records import Example

LEDGER_ROW, LEDGER_TOKEN = 1_300, 10  # bytes of the ledger an answer, and a token of it: text and token ids


def memory_and_disk(
    config: Config,
    prepared: Prepared,
    base: Path,
    counters: Mapping[str, Counter],
    answers: int,
    tokens: int,
    *,
    gpu: bool,
) -> dict[str, Any]:
    """`memory` of each training stage and `disk`, in bytes; models that are not here are named.

    Args:
        counters: of `teacher` and `student_sft`.
        answers, tokens: still to be recorded.
    """
    found: list[dict[str, Any]] = []
    unknown: list[str] = []
    sizes: dict[str, int] = {"ledger": LEDGER_ROW * answers + LEDGER_TOKEN * tokens}
    longest = _longest(config, prepared, counters)
    for stage, role, settings, copies in _stages(config):
        section = getattr(config, role)
        model = _model(config, role, base)
        if model is None:
            unknown.append(f"{stage}: {section.model} is not on this machine as a folder")
            continue
        lora = config.lora_for(settings, section)
        half = section.dtype in ("bfloat16", "float16") or (section.dtype == "auto" and gpu)
        prompt, completions = longest[stage]
        needed = need(
            model,
            settings,
            lora,
            longest=prompt + completions,
            completions=completions,
            gpu=gpu,
            half=half,
        )
        found.append(_row(stage, needed, model, lora, settings, half))
        kept, meanwhile = disk(model, found[-1]["trained"], half=half, adapter=lora is not None and stage != "distill")
        sizes[stage] = kept * copies
        sizes["checkpoints"] = max(sizes.get("checkpoints", 0), meanwhile)
    notes = [*unknown, *_not_counted(config)]
    return {"memory": found, "gpu": gpu, "disk": sizes, "size_notes": notes}


def _row(
    stage: str, needed: Any, model: Model, lora: LoraSection | None, settings: TrainSettings, half: bool
) -> dict[str, Any]:
    return {
        "stage": stage,
        "model": model.weights,
        "trained": trained_weights(model, lora, settings),
        "dtype": "16 bit" if half else "float32",
        "tokens": needed.tokens,
        "weights": needed.weights,
        "gradients": needed.gradients,
        "optimizer": needed.optimizer,
        "activations": needed.activations,
        "total": needed.total,
    }


def _stages(config: Config) -> Iterator[tuple[str, str, TrainSettings, int]]:
    """Training runs: stage, whose model, settings, and how many models it leaves behind."""
    if config.teacher.sft:
        yield "sft/teacher", "teacher", config.sft.settings("teacher"), 1
    yield "sft/student", "student", config.sft.settings("student"), 1
    best_and_latest = 2 if config.distill.rounds > 1 or len(config.distill.objective.alternatives) > 1 else 0
    yield "distill", "student", config.distill, 1 + best_and_latest
    if config.methods:
        yield "baselines", "student", config.distill, len(config.methods)


def _model(config: Config, role: str, base: Path) -> Model | None:
    from plad.policy.resolve import is_adapter, local_folder

    section = getattr(config, role)
    try:
        folder = local_folder(locate(section.model, base), section.revision)
    except PladError:
        return None
    if folder is None or is_adapter(folder):
        return None
    return read_model(folder, getattr(section, "init", None))


def _longest(config: Config, prepared: Prepared, counters: Mapping[str, Counter]) -> dict[str, tuple[int, int]]:
    """Tokens of the longest prompt of each training stage, and of its completions."""
    teacher, counter = counters["teacher"], counters["student_sft"]

    def prompt(rows: list[Example], own: Counter) -> int:
        return max((own.prompt(e) for e in rows), default=0)

    def target(rows: list[Example], own: Counter) -> int:
        return max((own.completion(e.target) for e in rows if e.target is not None), default=0)

    rows, distill = prepared.sft, distill_rows(config, prepared)
    answers = (config.generate.samples + config.student_samples) * config.generate.max_new_tokens
    on_pairs = (prompt(distill, counter), answers)
    return {
        "sft/teacher": (prompt(rows, teacher), target(rows, teacher)),
        "sft/student": (prompt(rows, counter), target(rows, counter)),
        "distill": on_pairs,
        "baselines": on_pairs,
    }


def _not_counted(config: Config) -> Iterator[str]:
    if any(o.needs.logits for o in config.objectives):
        yield "not counted: the teacher beside the student, or its stored logits, for an objective on logits"
