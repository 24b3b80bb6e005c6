"""LoRA adapters: attach, save, load on their base with every mismatch named, merge."""

import difflib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from plad.config.models import LoraSection
from plad.errors import PolicyError
from plad.policy.backend import modules_of
from plad.policy.context import text_config
from plad.policy.fingerprint import canonical_adapter
from plad.policy.resolve import ADAPTER, adapter_config, check_folder

_PREFIX = "base_model.model."
_TIED = "Model has `tie_word_embeddings=True` and a tied layer"


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read but not loaded.

    Attributes:
        base: folder or hub name of the model it was trained on.
        revision: of a hub base.
    """

    folder: Path
    base: str
    revision: str | None
    rank: int


def has_adapter(model: nn.Module) -> bool:
    """Whether a model carries an adapter."""
    return isinstance(model, PeftModel)


def attach(model: PreTrainedModel, section: LoraSection) -> tuple[PreTrainedModel, str]:
    """The model in a fresh adapter, whose weights alone are trained, and a one-line note."""
    targets = section.target_modules
    _check_names(model, targets or ())
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        r=section.r,
        lora_alpha=section.alpha,  # type: ignore[arg-type]
        lora_dropout=section.dropout,
        target_modules="all-linear" if targets is None else list(targets),
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _TIED)
            wrapped = get_peft_model(model, config)
    except ValueError as e:
        raise PolicyError(
            f"the adapter can't be attached: {str(e).splitlines()[0]}",
            where="lora.target_modules",
            fix=f"linear layers of this model: {_linear(model)}",
        ) from None
    _refuse_tied(wrapped.get_base_model(), "lora.target_modules", f"name others, such as {_linear(model)}")
    wrapped.eval()
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    where = "every linear layer but the head" if targets is None else ", ".join(targets)
    note = f"LoRA r {section.r}, alpha {section.alpha:g} on {where} ({trained:,} weights are trained)"
    return cast(PreTrainedModel, wrapped), note


def _check_names(model: nn.Module, targets: Sequence[str]) -> None:
    """Every name must be a module's: peft is content with one of several."""
    names = [name for name, _ in modules_of(model)]
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if missing:
        linear = _linear(model)
        close = difflib.get_close_matches(missing[0], linear.split(", "), n=1)
        hint = f"did you mean {close[0]}?\n" if close else ""
        raise PolicyError(
            f"{type(model).__name__} has no module {', '.join(missing)}",
            where="lora.target_modules",
            fix=f"{hint}linear layers of this model: {linear}",
        )


def _linear(model: nn.Module) -> str:
    """Names of a model's linear layers."""
    plain = (n for n, m in modules_of(model) if type(m).__name__ in ("Linear", "Conv1D") and "lora_" not in n)
    return ", ".join(sorted({n.removesuffix(".base_layer").rpartition(".")[2] for n in plain}))


def _refuse_tied(model: Any, where: str, fix: str) -> None:
    """Refuse an adapter on the embeddings or the head where both are one matrix: merged, it would change both."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or _matrix(head) is not _matrix(embeddings):
        return
    for name, module in (("output head", head), ("input embeddings", embeddings)):
        if hasattr(module, "base_layer"):
            raise PolicyError(
                f"an adapter on the {name} of {type(model).__name__}, whose head and input embeddings are one matrix: "
                "merged into the weights it would change both",
                where=where,
                fix=fix,
            )


def _matrix(module: nn.Module) -> object:
    return getattr(module, "base_layer", module).weight


def merge(model: Any) -> PreTrainedModel:
    """The base model with its adapter added into the weights."""
    merged = model.merge_and_unload()
    merged.requires_grad_(True)
    return merged.eval()


def save(model: Any, folder: Path, base: str, revision: str | None) -> None:
    """Write an adapter folder that names its base."""
    config = model.peft_config[model.active_adapter]
    config.base_model_name_or_path, config.revision = base, revision
    model.save_pretrained(folder, save_embedding_layers=False)
    file = folder / ADAPTER
    content = canonical_adapter(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")  # else as peft writes it
    (folder / "README.md").unlink(missing_ok=True)  # peft's unfilled form


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder's config."""
    check_folder(folder)
    config = adapter_config(folder)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise PolicyError(f"an adapter of type {kind}; LoRA is supported", where=str(folder), fix="use a LoRA adapter")
    if config.get("megatron_config"):
        raise PolicyError(
            "the adapter names a Megatron module to import; nothing is imported because a file says so",
            where=str(folder),
            fix=f"set megatron_config to null in {ADAPTER} if the adapter was trained without Megatron",
        )
    return Adapter(folder, config["base_model_name_or_path"], config.get("revision"), config.get("r", 8))


def load_merged(base: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The base with a saved adapter merged in."""
    _check_fit(base, adapter)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error below, as is the next
            warnings.filterwarnings("ignore", _TIED)
            model = PeftModel.from_pretrained(  # pyright: ignore[reportUnknownMemberType]  # typed in part
                base, str(adapter.folder), low_cpu_mem_usage=False
            )
    except (RuntimeError, ValueError, OSError, TypeError) as e:
        raise PolicyError(
            f"the adapter doesn't fit its base {adapter.base}: {' '.join(str(e).split())[:300]}",
            where=str(adapter.folder),
        ) from None
    _refuse_tied(model.get_base_model(), str(adapter.folder), "train the adapter without them")
    loaded = {n for n, m in modules_of(model.get_base_model()) if hasattr(m, "lora_A")}
    untrained = sorted(loaded - set(_shapes(adapter)))
    if untrained:
        raise PolicyError(
            f"the adapter has no weights for {len(untrained)} modules of its base, such as {untrained[0]}: "
            "it was trained on another base",
            where=str(adapter.folder),
            fix=f"correct base_model_name_or_path in {ADAPTER} (now {adapter.base})",
        )
    return merge(model)


def _shapes(adapter: Adapter) -> dict[str, dict[str, int]]:
    """{module: {"in": features, "out": features}} of the adapter's LoRA weights."""
    shapes: dict[str, dict[str, int]] = {}
    for file in sorted(adapter.folder.glob("adapter_model*.safetensors")):
        with _open(file) as weights:
            for key in list[str](weights.keys()):
                module, _, part = key.removeprefix(_PREFIX).partition(".lora_")
                shape: list[int] = weights.get_slice(key).get_shape()
                if part == "A.weight":
                    shapes.setdefault(module, {})["in"] = shape[1]
                elif part == "B.weight":
                    shapes.setdefault(module, {})["out"] = shape[0]
    return shapes


def _open(file: Path) -> Any:
    """A file of safetensors, which has no types."""
    return safe_open(file, "pt")


def _features(module: nn.Module) -> dict[str, int] | None:
    if isinstance(module, nn.Linear):
        return {"in": module.in_features, "out": module.out_features}
    weight = getattr(module, "weight", None)
    if isinstance(module, Conv1D) and isinstance(weight, torch.Tensor):
        return {"in": weight.shape[0], "out": weight.shape[1]}
    return None


def _check_fit(base: PreTrainedModel, adapter: Adapter) -> None:
    shapes = _shapes(adapter)
    if not shapes:
        raise PolicyError("the adapter holds no LoRA weights", where=str(adapter.folder), fix="save the adapter again")
    modules: dict[str, nn.Module] = dict(modules_of(base))
    fix = f"correct base_model_name_or_path in {ADAPTER} (now {adapter.base})"
    for name, shape in shapes.items():
        if name not in modules:
            raise PolicyError(
                f"the adapter has weights for {name}, which its base {adapter.base} ({type(base).__name__}, "
                f"{text_config(base.config).num_hidden_layers} layers) doesn't have",
                where=str(adapter.folder),
                fix=fix,
            )
        features = _features(modules[name])
        if features is not None and any(features[k] != shape[k] for k in shape):
            raise PolicyError(
                f"the adapter's {name} is {shape.get('in')} -> {shape.get('out')}, its base's "
                f"{features['in']} -> {features['out']}",
                where=str(adapter.folder),
                fix=fix,
            )
