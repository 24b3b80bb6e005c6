"""What comes before training: weights made trainable, rows counted."""

from collections.abc import Mapping
from typing import Any

from plad.config.models import LoraSection, TrainSettings
from plad.errors import DataError, PolicyError


def trainable(policy: Any, lora: LoraSection | None, settings: TrainSettings, seed: int) -> Any:
    """The policy with a fresh adapter, drawn from the run's seed, or with the weights to train unfrozen."""
    import torch
    from transformers import set_seed

    from plad.policy.load import attach, freeze_embeddings

    if policy.dtype is torch.float16:
        raise PolicyError(
            "float16 weights can't be trained: small gradients vanish in them",
            where="dtype",
            fix="dtype: bfloat16\nor dtype: float32",
        )
    if lora is not None:
        set_seed(seed)
        return attach(policy, lora)
    if settings.freeze_embeddings:
        freeze_embeddings(policy)
    return policy


def require_groups(groups: list[Any], counts: Mapping[str, Any], where: str) -> None:
    if not groups:
        raise DataError(
            f"no rows left to train on: {dict(counts)}", where=where, fix="raise max_length\nor give shorter rows"
        )
