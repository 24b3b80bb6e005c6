"""What the libraries under a policy are told: device and precision, each with the reason, and no bars of their own."""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers.utils import logging as transformers_logging


def choose_device() -> tuple[torch.device, str]:
    """The device to run on, and why."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), f"auto: {torch.cuda.get_device_name()}"
    return torch.device("cpu"), "auto: no GPU"


def choose_dtype(
    asked: Literal["auto", "float32", "bfloat16", "float16"], device: torch.device
) -> tuple[torch.dtype, str]:
    """The dtype of the weights on `device`, and why."""
    if asked != "auto":
        return getattr(torch, asked), "set by dtype"
    if device.type != "cuda":
        return torch.float32, f"auto: {device.type.upper()}"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "auto: the GPU has it"
    return torch.float32, "auto: the GPU has no bfloat16"


@contextlib.contextmanager
def no_progress_bars() -> Generator[None]:
    """Keep transformers' own progress bars off inside the block."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def from_pretrained(kind: Any, folder: Path, **how: Any) -> Any:
    """`kind.from_pretrained`, without code of the model; transformers types it in part."""
    return kind.from_pretrained(folder, trust_remote_code=False, **how)


def modules_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of a model with its dotted name; torch types them in part."""
    return cast(Iterator[tuple[str, nn.Module]], model.named_modules())
