"""From the name of a model to a local folder with safetensors weights: folder, hub name or GGUF file."""

import difflib
import json
import re
from pathlib import Path

from yaml import YAMLError

from plad.data.sources import locate
from plad.errors import PolicyError
from plad.policy.gguf import convert_gguf, converted_folder, require_gguf
from plad.rundir.atomic import is_complete

ADAPTER = "adapter_config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md")
_TOKENIZER_FILES = ("tokenizer*", "*.json", "*.jinja", "*.model", "*.txt")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

Tensors = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type of tensors by name."""


def resolve_model(model: str, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The local folder of a model: downloaded or converted once, then found in the cache.

    Args:
        cache_dir: where converted GGUF models are kept.
    """
    path = Path(model).expanduser()
    local = path.exists() or not is_hub_name(model)
    if local and revision is not None:
        raise PolicyError(
            "revision belongs to a hub model, but this is a local path", where=model, fix="remove `revision`"
        )
    if path.is_dir():
        check_folder(path)
        return path
    if path.is_file() and path.suffix == ".gguf":
        return convert_gguf(path, cache_dir)
    if path.exists():
        raise PolicyError("a single file is no model", where=model, fix="name its folder, or a .gguf file")
    if local:
        kind = "file" if path.suffix == ".gguf" else "folder"
        raise PolicyError(
            f"no such {kind}", where=model, fix="check `model`; paths are relative to the working directory"
        )
    folder = _download(model, revision)
    check_folder(folder)
    return folder


def locate_model(model: str, base: Path | None, revision: str | None = None) -> str:
    """A model's path as it is opened, found as `locate` does; a hub name stays as it is.

    Raises:
        PolicyError: nothing is there, and it is no hub name: a folder of its first part is there.
    """
    found = locate(model, base)
    path = Path(found).expanduser()
    if path.exists() or "/" not in model or _in_cache(found, revision):
        return found
    folders = [f for f in dict.fromkeys(((base or Path()) / path.parent, path.parent)) if f.is_dir()]
    if not folders and is_hub_name(found):
        return found
    names = [p.name for folder in folders for p in folder.iterdir() if p.is_dir() or p.suffix == ".gguf"]
    close = difflib.get_close_matches(path.name, names, n=1)
    ways = [f"did you mean {path.parent / close[0]}?"] if close else []
    if is_hub_name(found):
        ways.append(f"or, for the hub's model of this name, run once: hf download {found}")
    elif not close:
        ways.append("check `model`; paths are read from the config's folder, then from here")
    there = f", though {path.parent}/ exists" if folders and str(path.parent) != "." else ""
    raise PolicyError(
        f"no such {'file' if path.suffix == '.gguf' else 'folder'}{there}", where=model, fix="\n".join(ways)
    )


def _in_cache(name: str, revision: str | None) -> bool:
    try:
        return is_hub_name(name) and cached(name, revision) is not None
    except PolicyError:
        return False


def resolve_tokenizer(name: str) -> Path:
    """The local folder of a tokenizer, which may hold no weights; of the hub nothing else is downloaded."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not is_hub_name(name):
        raise PolicyError("no such folder", where=name, fix="name a folder with tokenizer.json, or a hub name")
    return _download(name, None, _TOKENIZER_FILES)


def is_hub_name(model: str) -> bool:
    """Whether a name that is no existing path can only be meant as ``owner/name`` on the hub."""
    return bool(_HUB_NAME.fullmatch(model)) and not model.startswith(".") and not model.endswith(".gguf")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter rather than a whole model."""
    return (folder / ADAPTER).is_file()


def check_folder(folder: Path) -> None:
    """Check that a folder holds a model or adapter in safetensors."""
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        raise PolicyError(
            "no model in this folder (neither config.json nor adapter_config.json)",
            where=str(folder),
            fix="name a folder that save_pretrained wrote",
        )
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        raise PolicyError(
            f"the weights are a pickle file ({pickles[0]}); opening one can run code, so only safetensors are read",
            where=str(folder),
            fix='if you trust it, convert it once: python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\"\n"
            "or use a revision of the model with safetensors weights",
        )
    raise PolicyError(
        "the folder holds no *.safetensors weights",
        where=str(folder),
        fix="copy the weights into it, or use a model with safetensors weights (pickle files are not read)",
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads: some folders hold the same weights once more in another form."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    files = sorted(folder.glob("*.safetensors"))
    if not index.is_file():
        return files
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [file for file in files if file.name in named]


def read_tensors(folder: Path) -> Tensors:
    """Every tensor of a folder, from the headers of its safetensors files."""
    tensors: Tensors = {}
    for file in weight_files(folder):
        with file.open("rb") as f:
            header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        tensors |= {name: (tuple(t["shape"]), t["dtype"]) for name, t in header.items() if name != "__metadata__"}
    return tensors


def _download(name: str, revision: str | None, patterns: tuple[str, ...] = _HUB_FILES) -> Path:
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]  # typed in part
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    shell = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    folder = "or name a local folder in `model`"
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*", "consolidated*"]
            )
        )
    except GatedRepoError:
        raise PolicyError(
            "the model is gated: its owner asks you to accept a licence first",
            where=name,
            fix=f"accept it at https://huggingface.co/{name}, then run: hf auth login\n{folder}",
        ) from None
    except RevisionNotFoundError:
        raise PolicyError(f"the hub model has no revision {revision}", where=name, fix="check `revision`") from None
    except RepositoryNotFoundError:
        raise PolicyError(
            "no such folder, and no such model on the hub (or it is private)",
            where=name,
            fix=f"check `model`; for a private one run: hf auth login\n{folder}",
        ) from None
    except HFValidationError as e:
        raise PolicyError(f"no such folder, and not a hub name ({e})", where=name, fix="check `model`") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, OSError) as e:
        raise PolicyError(
            f"no such folder, and the hub can't be reached or is switched off ({type(e).__name__})",
            where=name,
            fix=f"with a network run once: {shell}\n{folder}",
        ) from None


def local_folder(model: str, revision: str | None) -> Path | None:
    """The folder of a model that is on this machine; None where it would be downloaded or converted first."""
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        require_gguf(path)
        folder = converted_folder(path)
        return folder if is_complete(folder) else None
    if not path.exists() and is_hub_name(model):
        return cached(model, revision)
    return resolve_model(model, revision)


def cached(name: str, revision: str | None) -> Path | None:
    """The folder of a hub model that was downloaded before; None where it would be downloaded first."""
    from huggingface_hub import constants, snapshot_download  # pyright: ignore[reportUnknownVariableType]  # typed in part
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except HFValidationError as e:
        raise PolicyError(f"not a folder, and not a hub name ({e})", where=name, fix="check `model`") from None
    except LocalEntryNotFoundError:
        if constants.HF_HUB_OFFLINE:
            raise PolicyError(
                "no such folder, and as a hub model it is not on this machine while the hub is switched off",
                where=name,
                fix=f"with a network run once: HF_HUB_OFFLINE=0 hf download {name}\nor name a local folder",
            ) from None
        return None


def licence_of(folder: Path) -> str | None:
    """The licence that a model's card names; None where there is no card, or it names none."""
    from huggingface_hub.repocard import metadata_load

    card = folder / "README.md"
    try:
        licence = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, OSError, YAMLError):
        return None
    return licence if isinstance(licence, str) else None
