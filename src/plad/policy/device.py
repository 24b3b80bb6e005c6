"""Where a policy runs and in which precision, each with the reason."""

from typing import Literal

import torch


def choose_device() -> tuple[torch.device, str]:
    """The device to run on.

    Returns:
        (device, reason).
    """
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), f"auto: {torch.cuda.get_device_name()}"
    return torch.device("cpu"), "auto: no GPU"


def choose_dtype(
    asked: Literal["auto", "float32", "bfloat16", "float16"], device: torch.device
) -> tuple[torch.dtype, str]:
    """The dtype of the weights on `device`.

    Returns:
        (dtype, reason).
    """
    if asked != "auto":
        return getattr(torch, asked), "set by dtype"
    if device.type != "cuda":
        return torch.float32, f"auto: {device.type.upper()}"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "auto: the GPU has it"
    return torch.float32, "auto: the GPU has no bfloat16"
