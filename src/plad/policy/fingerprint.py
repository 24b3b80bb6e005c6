"""What a model is, as a hash: for the keys of recorded answers and the inputs of stages. Needs no torch."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

from plad.policy.resolve import ADAPTER, adapter_config, is_adapter, resolve_model
from plad.rundir.atomic import COMPLETE, read_marker
from plad.rundir.fingerprint import file_sha256, fingerprint

_SHAPING = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
MADE_FROM = "made_from.json"  # what a stage notes beside a model, its seconds too: no part of the model
ADAPTER_SETS = ("exclude_modules", "layers_to_transform", "modules_to_save", "target_modules")  # peft keeps sets
_NOTES = {  # what writers note of themselves and of places
    *("_from_model_config", "_name_or_path", "_model_name_or_path", "transformers_version"),
    *("is_local", "local_files_only", "name_or_path", "special_tokens_map_file", "tokenizer_file"),
}
_ADAPTER_NOTES = {"auto_mapping", "inference_mode", "lora_dropout", "peft_version"}  # nothing of a merged adapter
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelFingerprint(str):
    """A model's fingerprint.

    Attributes:
        former: the hash of the same folder with its JSON files as they stand, which older runs know it by.
    """

    former: str

    def __new__(cls, now: str, former: str) -> Self:
        """A fingerprint with its former one."""
        self = super().__new__(cls, now)
        self.former = former
        return self


def as_known_before(value: object) -> Any:
    """A value with every fingerprint of a model in it replaced by its former one."""
    if isinstance(value, ModelFingerprint):
        return value.former
    if isinstance(value, Mapping):
        return {key: as_known_before(v) for key, v in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [as_known_before(v) for v in cast("list[object]", value)]
    return value


def model_fingerprint(model: str, revision: str | None = None, cache_dir: Path | None = None) -> ModelFingerprint:
    """Fingerprint of a model named as in the config: folder, hub name, or .gguf file."""
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return _unchanged({"gguf": file_sha256(path)})
    return folder_fingerprint(resolve_model(model, revision, cache_dir))


def folder_fingerprint(folder: Path) -> ModelFingerprint:
    """Fingerprint of a model folder: weights, config and tokenizer; an adapter's includes its base's.

    JSON counts by what it says of the answers: the order of keys and of sets doesn't matter, nor does the version of
    the library that wrote it. Hashes of weights come from the folder's COMPLETE marker where it has one; a folder of
    the hub's cache is its commit. The place of a folder doesn't matter, nor do files beside the model (README.md,
    made_from.json).
    """
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and _COMMIT.fullmatch(resolved.name):
        return _unchanged({"commit": resolved.name})
    marker = folder / COMPLETE
    known: dict[str, str] = read_marker(folder) if marker.is_file() else {}
    files = {p for pattern in _SHAPING for p in folder.glob(pattern)}
    files = sorted(p for p in files if p.name not in (ADAPTER, MADE_FROM))
    content = {p.name: known.get(p.name) or file_sha256(p) for p in files}
    now = {p.name: _json_digest(p) if p.suffix == ".json" else content[p.name] for p in files}
    if not is_adapter(folder):
        return ModelFingerprint(fingerprint({"model": now}), fingerprint(content))
    config = adapter_config(folder)
    base = model_fingerprint(config.pop("base_model_name_or_path"), config.pop("revision", None))
    shaping = {k: v for k, v in canonical_adapter(config).items() if k not in _ADAPTER_NOTES}
    return ModelFingerprint(
        fingerprint({"model": now, "adapter": shaping, "base": base}),
        fingerprint({"adapter": content, "config": config, "base": base.former}),
    )


def canonical_adapter(config: Mapping[str, Any]) -> dict[str, Any]:
    """An adapter's config with its sets in one order; as peft writes them it changes from process to process."""
    return {
        k: sorted(cast("list[Any]", v)) if k in ADAPTER_SETS and isinstance(v, list) else v for k, v in config.items()
    }


def _unchanged(value: object) -> ModelFingerprint:
    return ModelFingerprint(name := fingerprint(value), name)


def _json_digest(file: Path) -> str:
    stat = file.stat()
    return _read_digest(file, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=256)  # a tokenizer is megabytes of JSON, and asked for at every stage
def _read_digest(file: Path, *_state: int) -> str:
    """Hash of what a JSON file says; one that can't be read counts as it stands, and is refused where it is loaded."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return file_sha256(file)
    if isinstance(content, dict):
        content = {k: v for k, v in cast("dict[str, object]", content).items() if k not in _NOTES}
    return fingerprint(content)
