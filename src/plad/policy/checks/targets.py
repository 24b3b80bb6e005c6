"""Adapters tried on a model without weights: its modules exist, and take no memory."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig

from plad.config.models import LoraSection
from plad.errors import PolicyError
from plad.policy import lora


def check_targets(config: PreTrainedConfig, adapters: Mapping[str, LoraSection]) -> None:
    """Attach the adapters that name their modules to a model as its config describes it.

    Args:
        adapters: by their place in the run's config.

    Raises:
        PolicyError: a module doesn't exist or can't be adapted; the names of those that can are in it.
    """
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    for place, section in adapters.items():
        if section.target_modules is None:
            continue  # every linear layer: there is always one
        with torch.device("meta"):
            model = kind.from_config(config)
            try:
                lora.attach(model, section)
            except PolicyError as e:
                raise PolicyError(e.what, where=f"{place}.target_modules", fix=e.fix) from None
