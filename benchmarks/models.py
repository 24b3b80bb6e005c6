"""The models that are measured: one from its folder, a cut of it that takes a third of the time, and random T5s."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, T5Config
from transformers.utils import logging as transformers_logging

from benchmarks.data import Pair
from plad.scoring.layout import Group
from plad.scoring.score import score


def load(folder: Path) -> PreTrainedModel:
    """The model of a folder, in float32 and wholly in memory."""
    transformers_logging.disable_progress_bar()
    both = AutoConfig.from_pretrained(str(folder)).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
    model = kind.from_pretrained(str(folder), dtype=torch.float32)
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


T5_SHAPES: dict[str, dict[str, int]] = {
    "t5-small": {},  # 6 + 6 layers, 32,128 tokens: 61 M parameters
    "t5-large/8": {  # layers and vocabulary cut alike, as of the third: 3 + 3 of 24 + 24, 4,016 of 32,128: 92 M
        "d_model": 1024,
        "d_ff": 4096,
        "num_heads": 16,
        "num_layers": 3,
        "vocab_size": 4016,
    },
}


def random_t5(shape: str, target: Path) -> int:
    """Save a T5 of one of `T5_SHAPES` with random weights; returns the size of its vocabulary.

    Without dropout: plad trains with the model's, TRL switches it off.
    """
    torch.manual_seed(0)
    config = T5Config(dropout_rate=0.0, decoder_start_token_id=0, **T5_SHAPES[shape])  # type: ignore[arg-type,call-arg]
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(target)
    return config.vocab_size


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
