"""Memory of each training stage and disk of the whole run.

Sizes come from a model's config.json and the headers of its safetensors files: nothing is loaded.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plad.config.models import LoraSection, ModelSection, PretrainedInit, PruneInit, StudentSection, TrainSettings
from plad.config.root import Config
from plad.data.prepare import Prepared
from plad.data.sources import locate
from plad.errors import PladError
from plad.extras.plan.requests import distill_rows
from plad.extras.plan.tokens import Counter
from plad.policy.resolve import is_adapter, local_folder, read_tensors
from plad.records import Example

GPU_MAX_TOKENS = 16_384  # tokens of one forward pass on a GPU, where the config names none
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|block|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:embed|wte|wpe|shared\.weight|lm_head|embed_out)")
_STATES = 12  # of width h, kept a token and layer for the backward pass: norms, residuals, query, attention, output
_HIDDEN = 4  # of the width of the feed-forward part, likewise: gate, up, their activation and product
LEDGER_ROW, LEDGER_TOKEN = 1_300, 10  # bytes of the ledger an answer, and a token of it: text and token ids
_ADAM = 8  # bytes a trained weight: two moments in float32


@dataclass(frozen=True, slots=True)
class Model:
    """What memory depends on.

    Attributes:
        weights: all of them, a tied head counted once.
        embeddings: those of them in embeddings and head.
        linear: rows + columns of every other matrix, which an adapter of rank 1 has as weights, by name.
        layers, width, inner, vocabulary: of the decoder.
    """

    weights: int
    embeddings: int
    linear: Mapping[str, int]
    layers: int
    width: int
    inner: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a training run holds at once, beside the process itself.

    Attributes:
        trained: weights that are trained.
        tokens: in one forward pass.
    """

    trained: int
    tokens: int
    weights: int
    gradients: int
    optimizer: int
    activations: int


@dataclass(frozen=True, slots=True)
class StageMemory(Need):
    """What a training stage needs.

    Attributes:
        model: all weights of the model.
        dtype: of weights that are not trained, and of activations.
        teacher: bytes of a teacher that scores the same tokens beside it: weights and logits.
        total: bytes in all.
    """

    stage: str
    model: int
    dtype: str
    teacher: int
    total: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Memory of each training stage and disk of the run, in bytes.

    Attributes:
        gpu: whether training is on a GPU.
        weights: bytes on disk of the models themselves that are here, by their name.
        size_notes: models that are not here, and what is not counted.
    """

    memory: list[StageMemory]
    gpu: bool
    disk: dict[str, int]
    weights: dict[str, int]
    size_notes: list[str]


def read_model(folder: Path, init: PretrainedInit | PruneInit | None = None) -> Model:
    """What a model folder says of its size.

    Args:
        init: of a student: a pruned one keeps some of its layers.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    kept = init.layers if isinstance(init, PruneInit) else None
    shapes = {n: s for n, (s, _) in read_tensors(folder).items() if kept is None or _layer(n) < kept}
    embeddings = sum(math.prod(s) for n, s in shapes.items() if _EMBEDDING.search(n))
    linear = {n: sum(s) for n, s in shapes.items() if len(s) == 2 and not _EMBEDDING.search(n)}
    layers = len({n[: m.end()] for n in shapes for m in [_LAYER.search(n)] if m})

    def number(*names: str, default: int = 0) -> int:
        return next((config[name] for name in names if isinstance(config.get(name), int)), default)

    width = number("hidden_size", "n_embd", "d_model")
    inner = number("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim", default=4 * width)
    weights = sum(map(math.prod, shapes.values()))
    return Model(weights, embeddings, linear, layers, width, inner, number("vocab_size"))


def _layer(name: str) -> int:
    match = _LAYER.search(name)
    return int(match[1]) if match else -1


def trained_weights(model: Model, lora: LoraSection | None, settings: TrainSettings) -> int:
    """How many weights are trained."""
    if lora is None:
        return model.weights - (model.embeddings if settings.freeze_embeddings else 0)
    names = lora.target_modules
    wanted = (n for name, n in model.linear.items() if names is None or any(f".{m}." in f".{name}" for m in names))
    return lora.r * sum(wanted)


def need(
    model: Model,
    settings: TrainSettings,
    lora: LoraSection | None,
    *,
    longest: int,
    completions: int,
    gpu: bool,
    half: bool,
) -> Need:
    """Memory of a training run.

    Weights that are trained, their gradients and AdamW's two moments are float32; the others have the model's type.
    Activations are those of one forward pass: about 12 states and 4 feed-forward states a token and layer (one
    state with gradient checkpointing), and the logits of the completions with their gradient.

    Args:
        longest: tokens of the longest group: a prompt with all its completions.
        completions: tokens of its completions.
        gpu: whether `max_tokens` defaults to 16,384 instead of one group.
        half: 16-bit weights and activations.
    """
    size = 2 if half else 4
    tokens = max(longest, settings.max_tokens or (GPU_MAX_TOKENS if gpu else 0))
    scored = tokens if longest == 0 else tokens * completions // longest
    trained = trained_weights(model, lora, settings)
    frozen = model.weights if lora is not None else model.weights - trained
    states = _STATES * model.width + _HIDDEN * model.inner
    kept = model.width * model.layers + states if settings.gradient_checkpointing else states * model.layers
    return Need(
        trained=trained,
        tokens=tokens,
        weights=frozen * size + trained * 4,
        gradients=trained * 4,
        optimizer=trained * _ADAM,
        activations=size * (tokens * kept + 2 * scored * model.vocabulary),
    )


def memory_and_disk(
    config: Config,
    prepared: Prepared,
    base: Path,
    counters: Mapping[str, Counter],
    recorded: tuple[int, int],
    *,
    gpu: bool,
) -> Sizes:
    """Memory of each training stage and disk; models that are not here are named.

    Args:
        counters: of `teacher` and `student_sft`.
        recorded: answers and their tokens that are still to be recorded.
    """
    memory: list[StageMemory] = []
    unknown: list[str] = []
    sizes = {"ledger": LEDGER_ROW * recorded[0] + LEDGER_TOKEN * recorded[1]}
    longest = _longest(config, prepared, counters)
    for stage, section, settings, copies in _trainings(config):
        model = model_of(section, base)
        if model is None:
            unknown.append(f"{stage}: {section.model} is not on this machine as a folder")
            continue
        lora = config.lora_for(settings, section)
        half = section.dtype in ("bfloat16", "float16") or (section.dtype == "auto" and gpu)
        prompt, completions = longest[stage]
        n = need(model, settings, lora, longest=prompt + completions, completions=completions, gpu=gpu, half=half)
        beside = _teacher_beside(config, stage, base, n.tokens, gpu=gpu)
        if beside is None:
            unknown.append(f"{stage}: the teacher beside the student is not counted: it is not here as a folder")
        total = n.weights + n.gradients + n.optimizer + n.activations + (beside or 0)
        dtype = "16 bit" if half else "float32"
        memory.append(
            StageMemory(**asdict(n), stage=stage, model=model.weights, dtype=dtype, teacher=beside or 0, total=total)
        )
        if stage == "sft/student" and isinstance(config.student.init, PruneInit):
            sizes["sft/student_base"] = model.weights * (2 if half else 4)
        adapter = lora is not None and stage != "distill"
        sizes[stage] = copies * (n.trained if adapter else model.weights) * (2 if half else 4)
        while_training = 2 * n.trained * (4 + _ADAM) + n.trained * 4  # two checkpoints and the best weights
        sizes["checkpoints"] = max(sizes.get("checkpoints", 0), while_training)
    weights = {s.model: n for s in (config.teacher, config.student) if (n := _on_disk(s, base))}
    return Sizes(memory, gpu, sizes, weights, [*unknown, *_not_counted(config)])


def _trainings(config: Config) -> Iterator[tuple[str, ModelSection, TrainSettings, int]]:
    """Training runs: stage, whose model, settings, and how many models it leaves behind."""
    if config.teacher.sft:
        yield "sft/teacher", config.teacher, config.sft.settings("teacher"), 1
    yield "sft/student", config.student, config.sft.settings("student"), 1
    best_and_latest = 2 if config.distill.rounds > 1 or len(config.distill.objective.alternatives) > 1 else 0
    yield "distill", config.student, config.distill, 1 + best_and_latest
    if config.methods:
        yield "baselines", config.student, config.distill, len(config.methods)


def _teacher_beside(config: Config, stage: str, base: Path, tokens: int, *, gpu: bool) -> int | None:
    """Bytes of the teacher while the student is trained: 0 where only texts are needed; None where it is not here."""
    trained = {"distill": config.distill.objective.alternatives, "baselines": [m.objective for m in config.methods]}
    needs = [n for o in trained.get(stage, ()) if (n := o.needs.logits) is not None and n.top_k is None]
    if not needs:
        return 0
    model = model_of(config.teacher, base)
    if model is None:
        return None
    types = [config.teacher.dtype if n.dtype == "auto" else n.dtype for n in needs]
    size = max(2 if t in ("bfloat16", "float16") or (t == "auto" and gpu) else 4 for t in types)
    return size * (model.weights + tokens * model.vocabulary)


def _on_disk(section: ModelSection, base: Path) -> int:
    folder = folder_of(section, base)
    return 0 if folder is None else sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def folder_of(section: ModelSection, base: Path) -> Path | None:
    """Where a model's files are on this machine; None where they are not."""
    try:
        return local_folder(locate(section.model, base), section.revision)
    except PladError:
        return None


def model_of(section: ModelSection, base: Path) -> Model | None:
    """What memory depends on, of a model that is here as a folder."""
    folder = folder_of(section, base)
    if folder is None or is_adapter(folder):
        return None
    return read_model(folder, section.init if isinstance(section, StudentSection) else None)


def _longest(config: Config, prepared: Prepared, counters: Mapping[str, Counter]) -> dict[str, tuple[int, int]]:
    """Tokens of the longest prompt of each training stage, and of its completions."""

    def prompt(rows: Sequence[Example], system: str) -> int:
        return max((counters[system].prompt(e) for e in rows), default=0)

    def target(system: str) -> int:
        return max((counters[system].completion(e.target) for e in prepared.sft if e.target is not None), default=0)

    answers = (config.generate.samples + config.student_samples) * config.generate.max_new_tokens
    on_pairs = (prompt(distill_rows(config, prepared), "student_sft"), answers)
    return {
        "sft/teacher": (prompt(prepared.sft, "teacher"), target("teacher")),
        "sft/student": (prompt(prepared.sft, "student_sft"), target("student_sft")),
        "distill": on_pairs,
        "baselines": on_pairs,
    }


def _not_counted(config: Config) -> Iterator[str]:
    if any(n.top_k is not None for o in config.objectives if (n := o.needs.logits) is not None):
        yield "not counted: the teacher's logits that an objective stores before it trains"
