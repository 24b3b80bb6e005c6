"""Memory of a training run, from a model's config.json and the headers of its safetensors files: nothing is loaded."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plad.config.models import LoraSection, PruneInit, TrainSettings

GPU_MAX_TOKENS = 16_384  # tokens of one forward pass on a GPU, where the config names none
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|block|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:embed|wte|wpe|shared\.weight|lm_head|embed_out)")
_STATES = 12  # of width h, kept a token and layer for the backward pass: norms, residuals, query, attention, output
_HIDDEN = 4  # of the width of the feed-forward part, likewise: gate, up, their activation and product
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
    """Bytes that a training run holds at once, beside the process itself."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    tokens: int  # in one forward pass

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a folder, from the headers of its safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as f:
            header: dict[str, Any] = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        shapes |= {name: tuple(t["shape"]) for name, t in header.items() if name != "__metadata__"}
    return shapes


def read_model(folder: Path, init: Any = None) -> Model:
    """What a model folder says of its size.

    Args:
        init: of a student: a pruned one keeps some of its layers.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    kept = init.layers if isinstance(init, PruneInit) else None
    shapes = {n: s for n, s in read_shapes(folder).items() if kept is None or _layer(n) < kept}
    embeddings = sum(math.prod(s) for n, s in shapes.items() if _EMBEDDING.search(n))
    linear = {n: sum(s) for n, s in shapes.items() if len(s) == 2 and not _EMBEDDING.search(n)}
    layers = len({n[: m.end()] for n in shapes for m in [_LAYER.search(n)] if m})
    width = next(_numbers(config, "hidden_size", "n_embd", "d_model"), 0)
    return Model(
        weights=sum(map(math.prod, shapes.values())),
        embeddings=embeddings,
        linear=linear,
        layers=layers,
        width=width,
        inner=next(_numbers(config, "intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim"), 4 * width),
        vocabulary=next(_numbers(config, "vocab_size"), 0),
    )


def _layer(name: str) -> int:
    match = _LAYER.search(name)
    return int(match[1]) if match else -1


def _numbers(config: Mapping[str, Any], *names: str) -> Iterator[int]:
    return (config[name] for name in names if isinstance(config.get(name), int))


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
        weights=frozen * size + trained * 4,
        gradients=trained * 4,
        optimizer=trained * _ADAM,
        activations=size * (tokens * kept + 2 * scored * model.vocabulary),
        tokens=tokens,
    )


def disk(model: Model, trained: int, *, half: bool, adapter: bool) -> tuple[int, int]:
    """Bytes of a finished model folder, and of what its training keeps meanwhile: two checkpoints and the best."""
    size = 2 if half else 4
    whole = trained * size if adapter else model.weights * size
    return whole, 2 * trained * (4 + _ADAM) + trained * 4
