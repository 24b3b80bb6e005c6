"""A block for bug reports: versions, device, memory, and what is switched off."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from plad.cli.guard import guard
from plad.text import clean
from plad.version import __version__

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "huggingface-hub",
    "pydantic", "typer", "scipy", "rouge-score", "pyarrow", "matplotlib",
)  # fmt: skip
EXTRAS = {"gguf": "gguf", "bench": "trl"}  # extra -> module
FLAGS = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_ENDPOINT",
    "HF_HUB_DISABLE_TELEMETRY", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM",
)  # fmt: skip


commands = typer.Typer()


@commands.command()
def doctor() -> None:
    """Print versions, device and memory for a bug report."""
    with guard():
        for name, value in examine():
            typer.echo(clean(f"{name:<26} {value}"))


def examine() -> Iterator[tuple[str, str]]:
    """Name and value of each fact; the values hold no secrets."""
    yield "plad", __version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in PACKAGES:
        yield name, version_of(name)
    for extra, module in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        yield f"extra {extra}", "installed" if found else f"missing: pip install 'plad[{extra}]'"
    yield from _torch()
    yield "memory", _memory()
    for name, path in (("working directory", Path.cwd()), ("home", Path.home())):
        usage = shutil.disk_usage(path)
        yield f"disk, {name}", f"{usage.free / 2**30:,.1f} of {usage.total / 2**30:,.1f} GiB free"
    for name in FLAGS:
        yield name, os.environ.get(name, "not set")
    yield "HF_TOKEN", "set" if os.environ.get("HF_TOKEN") else "not set"


def version_of(name: str) -> str:
    """The installed version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _torch() -> Iterator[tuple[str, str]]:
    import torch

    from plad.policy.backend import choose_device, choose_dtype

    device, why = choose_device()
    dtype, why_dtype = choose_dtype("auto", device)
    yield "device", f"{device} ({why})"
    yield "dtype", f"{str(dtype).removeprefix('torch.')} ({why_dtype})"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield "GPU memory", f"{free / 2**30:,.1f} of {total / 2**30:,.1f} GiB free"


def _memory() -> str:
    try:
        page, names = os.sysconf("SC_PAGE_SIZE"), ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        free, total = (os.sysconf(name) * page / 2**30 for name in names)
    except (ValueError, OSError):
        return "unknown"
    return f"{free:,.1f} of {total:,.1f} GiB free"
