"""GGUF files: converted once to a Hugging Face folder with safetensors, then found by the file's hash."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from plad.errors import MissingExtraError, PolicyError
from plad.policy.context import text_config
from plad.rundir.atomic import atomic_dir, is_complete, write_json, write_text
from plad.rundir.fingerprint import file_sha256

_ENCODER_DECODERS = ("t5", "bart", "pegasus", "m2m")


def converted_folder(path: Path, cache_dir: Path | None = None) -> Path:
    """Where the conversion of a file is kept: in ``$XDG_CACHE_HOME/plad/gguf`` or ``~/.cache/plad/gguf``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plad" / "gguf"
    return (cache_dir or default) / f"{path.stem}-{file_sha256(path)[:16]}"


def require_gguf(path: Path) -> None:
    """Raise MissingExtraError where the package that reads a file is not installed."""
    if find_spec("gguf") is None:
        raise MissingExtraError(
            "reading a GGUF file needs the package gguf", where=str(path), fix="pip install 'plad[gguf]'"
        )


def convert_gguf(path: Path, cache_dir: Path | None = None) -> Path:
    """The safetensors folder of a GGUF file: dequantised to float32, with tokenizer and chat template.

    Values are exactly those of the file: float32 holds every quantised value, bfloat16 wouldn't.

    The folder is written whole or not at all.
    """
    if not path.is_file():
        raise PolicyError("no such file", where=str(path), fix="check the path")
    folder = converted_folder(path, cache_dir)
    if is_complete(folder):
        return folder
    require_gguf(path)
    _refuse_encoder_decoder(path)
    with atomic_dir(folder) as staging:
        _convert(path, staging)
    return folder


def _refuse_encoder_decoder(path: Path) -> None:
    """Refuse a file of an encoder-decoder by what its header says, before its weights are read."""
    architecture = _header(path, "general.architecture") or ""
    if architecture.startswith(_ENCODER_DECODERS):
        raise PolicyError(
            f"the GGUF file holds an encoder-decoder ({architecture}); of GGUF files only decoder-only models are read",
            where=str(path),
            fix="use the model's safetensors folder or hub name instead",
        )


def _header(path: Path, name: str) -> str | None:
    """A field of a file's header; None where it has none, or is damaged: converting it says what is wrong."""
    from gguf import GGUFReader

    try:
        field = GGUFReader(path).get_field(name)
        return None if field is None else str(field.contents())
    except Exception:
        return None


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

    from plad.policy.backend import from_pretrained, no_progress_bars

    try:
        with no_progress_bars():
            tokenizer: PreTrainedTokenizerBase = from_pretrained(AutoTokenizer, path.parent, gguf_file=path.name)
            loaded: PreTrainedModel = from_pretrained(
                AutoModelForCausalLM, path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
            )
    except Exception as e:  # a damaged file can fail anywhere in the reader
        raise PolicyError(
            f"the GGUF file can't be converted: {type(e).__name__}: {(str(e).strip() or '?').splitlines()[0]}",
            where=str(path),
            fix="download the file again\nor use the model's safetensors folder or hub name instead",
        ) from e
    # A model loaded from GGUF calls itself quantized and refuses to be saved: the same tensors in a model
    # rebuilt from the config are an ordinary one. Built on the meta device, they are not copied.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        delattr(config, "quantization_config")
    with torch.device("meta"):
        rebuilt = type(loaded)(config)
    rebuilt.load_state_dict(loaded.state_dict(), assign=True)
    rebuilt.tie_weights()
    rebuilt.generation_config = loaded.generation_config
    with no_progress_bars():
        rebuilt.save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType]  # typed in part
        tokenizer.save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType]  # typed in part
    _drop_tokens_from(folder, rows=text_config(config).vocab_size)
    from huggingface_hub import ModelCardData

    if (licence := _header(path, "general.license")) is not None:
        head = ModelCardData(license=licence).to_yaml()  # pyright: ignore[reportUnknownMemberType]  # untyped in part
        write_text(folder / "README.md", f"---\n{head}\n---\n")


def _drop_tokens_from(folder: Path, rows: int) -> None:
    """Remove special tokens past the embedding rows: transformers adds its own default (an unknown token) where
    the file names none, and the model couldn't embed it."""
    file, settings_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    extra = [token["content"] for token in tokenizer["added_tokens"] if token["id"] >= rows]
    if not extra:
        return
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < rows]
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings = {name: value for name, value in settings.items() if value not in extra}
    write_json(file, tokenizer)
    write_json(settings_file, settings)
