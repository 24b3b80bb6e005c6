"""What a model is, as a hash: for the keys of recorded answers and the inputs of stages. Needs no torch."""

import json
import re
from pathlib import Path

from plad.policy.resolve import ADAPTER, is_adapter, resolve_model
from plad.rundir.atomic import COMPLETE, read_marker
from plad.rundir.fingerprint import file_sha256, fingerprint

_SHAPING = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
MADE_FROM = "made_from.json"  # what a stage notes beside a model, its seconds too: no part of the model
_COMMIT = re.compile(r"[0-9a-f]{40}")


def model_fingerprint(model: str, revision: str | None = None, cache_dir: Path | None = None) -> str:
    """Fingerprint of a model named as in the config: folder, hub name, or .gguf file."""
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return fingerprint({"gguf": file_sha256(path)})
    return folder_fingerprint(resolve_model(model, revision, cache_dir))


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint of a model folder: weights, config and tokenizer; an adapter's includes its base's.

    Hashes come from the folder's COMPLETE marker where it has one; a folder of the hub's cache is its commit.
    The place of a folder doesn't matter, nor do files beside the model (README.md, made_from.json).
    """
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and _COMMIT.fullmatch(resolved.name):
        return fingerprint({"commit": resolved.name})
    marker = folder / COMPLETE
    known: dict[str, str] = read_marker(folder) if marker.is_file() else {}
    files = sorted({p for pattern in _SHAPING for p in folder.glob(pattern)})
    content = {p.name: known.get(p.name) or file_sha256(p) for p in files if p.name not in (ADAPTER, MADE_FROM)}
    if not is_adapter(folder):
        return fingerprint(content)
    config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    base, revision = config.pop("base_model_name_or_path"), config.pop("revision", None)
    return fingerprint({"adapter": content, "config": config, "base": model_fingerprint(base, revision)})
