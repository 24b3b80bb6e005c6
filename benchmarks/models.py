"""The model that is measured, and a cut of it that takes a third of the time."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from benchmarks.data import Pair
from plad.scoring.layout import Group
from plad.scoring.score import score


def load(folder: Path) -> PreTrainedModel:
    """The model of a folder, in float32 and wholly in memory."""
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    for weights in model.parameters():
        # mapped from its file, a weight would come in at its first use and count as memory of the step
        weights.data = weights.data.clone()
    return model


def cut(folder: Path, target: Path, *, layers: int, vocabulary: int) -> None:
    """Save the first layers and the first rows of the vocabulary of a Llama-like model.

    Layers and head are cut alike, so that the share of the head's work stays as it was.
    """
    model = load(folder)
    decoder = model.model
    decoder.layers = nn.ModuleList(list(decoder.layers)[:layers])
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]
    model.resize_token_embeddings(vocabulary)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(model.config, name, None)
        if isinstance(value, int) and value >= vocabulary:
            setattr(model.config, name, None)
    model.save_pretrained(target)


def group(pair: Pair, name: str) -> Group:
    """The pair as the scoring core takes it."""
    return Group(name, pair.prompt, pair.completions)


@torch.no_grad()
def make_active(model: PreTrainedModel, batches: Sequence[Sequence[Pair]]) -> list[list[Pair]]:
    """Prefer the completion that the model finds least likely.

    A pair whose margin is met has no gradient, and plad skips its backward pass. Here every hinge is active, so that
    all trainers do the same work.
    """

    def active(pair: Pair) -> Pair:
        return pair.preferring(int(score(model, [group(pair, "pair")]).sums().argmin()))

    return [[active(pair) for pair in batch] for batch in batches]
