"""A pruned student: a teacher without its layers of least influence.

Influence of a layer is one minus the cosine between its input and its output, averaged over the token
positions of a sample of the task: a layer that hardly turns the hidden state is hardly missed.

Source: Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect"
(Block Influence).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plad.errors import PolicyError
from plad.policy.backend import modules_of
from plad.policy.context import text_config
from plad.policy.load import Policy
from plad.policy.lora import has_adapter
from plad.records import Prompt

# Settings under which what a layer computes depends on its number or on other layers.
_ENTANGLED = ("scale_attn_by_inverse_layer_idx", "num_kv_shared_layers")


@torch.no_grad()
def layer_influence(policy: Policy, prompts: Sequence[Prompt], completions: Sequence[str] | None = None) -> list[float]:
    """How much each decoder layer turns the hidden state on a sample of the task, in [0, 2]: 1 - mean cosine over all
    token positions.

    Every text, a prompt and its completion if given, is its own forward pass, cut where it is longer than the context.
    """
    if not prompts:
        raise PolicyError("influence needs at least one prompt", fix="raise `student.init.prompts`")
    layers = find_layers(_bare(policy))[2]
    cosines = torch.zeros(len(layers), dtype=torch.float64)
    positions = 0

    def measure(i: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before: Tensor = args[0] if args else kwargs["hidden_states"]  # [1, T, width]
        after: Tensor = output if isinstance(output, Tensor) else output[0]
        cosines[i] += F.cosine_similarity(before.float(), after.float(), dim=-1).sum().double().cpu()

    hooks = [
        layer.register_forward_hook(
            lambda _, args, kwargs, output, i=i: measure(i, args, kwargs, output), with_kwargs=True
        )
        for i, layer in enumerate(layers)
    ]
    training = policy.model.training
    policy.model.eval()
    try:
        for n, prompt in enumerate(prompts):
            ids = policy.prompt.encode_prompt(prompt)
            ids += policy.prompt.encode_completion(completions[n]) if completions is not None else []
            ids = ids[: policy.context]
            policy.model.base_model(input_ids=torch.tensor([ids], device=policy.device), use_cache=False)
            positions += len(ids)
    finally:
        policy.model.train(training)
        for hook in hooks:
            hook.remove()
    return [1 - float(cosine) / positions for cosine in cosines]


def prune_layers(
    policy: Policy, keep: int, prompts: Sequence[Prompt], completions: Sequence[str] | None = None
) -> Policy:
    """A new policy with the `keep` layers of greatest influence, in their order.

    The given policy stays as it is; only the kept weights are copied. Influence is measured as in `layer_influence`.
    """
    model = _bare(policy)
    total = len(find_layers(model)[2])
    if not 1 <= keep < total:
        raise PolicyError(
            f"can't keep {keep} of {total} layers",
            where="student.init.layers",
            fix=f"choose 1 to {total - 1}\nor `student.init.type: pretrained` to keep them all",
        )
    influence = layer_influence(policy, prompts, completions)
    kept = sorted(sorted(range(total), key=lambda i: (-influence[i], i))[:keep])
    pruned = drop_layers(model, kept)
    dropped = sorted(set(range(total)) - set(kept))
    note = f"pruned to {keep} of {total} layers on {len(prompts)} prompts; dropped {', '.join(map(str, dropped))}"
    return replace(policy, model=pruned, notes=[*policy.notes, note], base=None, base_revision=None)


def drop_layers(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A copy of a model with only the layers `kept`, renumbered, and a config that says so."""
    config = text_config(model.config)
    for name in _ENTANGLED:
        if getattr(config, name, None):
            raise PolicyError(
                f"layers of a model with {name} can't be dropped",
                where=type(model).__name__,
                fix="choose another model to prune",
            )
    owner, attribute, layers = find_layers(model)
    setattr(owner, attribute, nn.ModuleList(layers[i] for i in kept))
    try:
        pruned = copy.deepcopy(model)  # copies the kept layers only
    finally:
        setattr(owner, attribute, layers)
    for number, layer in enumerate(find_layers(pruned, len(kept))[2]):
        for module in layer.modules():
            for name in ("layer_idx", "layer_id"):
                if hasattr(module, name):
                    setattr(module, name, number)
    _shrink_config(text_config(pruned.config), len(layers), kept)
    return pruned


def find_layers(model: PreTrainedModel, count: int | None = None) -> tuple[nn.Module, str, nn.ModuleList]:
    """The decoder layers of a model: the module that holds them, under which name, and the list.

    It is the outermost list of as many modules as the config has layers, or `count`.
    """
    wanted = count or text_config(model.config).num_hidden_layers
    matches = [
        (name.count("."), name)
        for name, module in modules_of(model)
        if isinstance(module, nn.ModuleList) and len(module) == wanted and len({type(m) for m in module}) == 1
    ]
    if not matches:
        raise PolicyError(
            f"the decoder layers of {type(model).__name__} can't be found, so it can't be pruned",
            fix="use `student.init.type: pretrained` with a smaller model",
        )
    owner, _, attribute = min(matches)[1].rpartition(".")
    parent = model.get_submodule(owner)
    layers = getattr(parent, attribute)
    assert isinstance(layers, nn.ModuleList)
    return parent, attribute, layers


def _bare(policy: Policy) -> PreTrainedModel:
    if policy.model.config.is_encoder_decoder:
        raise PolicyError(
            f"{type(policy.model).__name__} is an encoder-decoder, which can't be pruned",
            fix="use `student.init.type: pretrained` with a smaller model of the family",
        )
    if has_adapter(policy.model):
        raise PolicyError("a policy with an adapter can't be pruned", fix="merge the adapter first")
    return policy.model


def _shrink_config(config: PreTrainedConfig, total: int, kept: Sequence[int]) -> None:
    """Make a config describe the kept layers: their number, and every list with one entry a layer."""
    settings: dict[str, object] = vars(config)
    for name, value in list(settings.items()):
        if isinstance(value, list | tuple) and len(cast(Sequence[object], value)) == total and "layer" in name:
            setattr(config, name, [value[i] for i in kept])
    if hasattr(config, "attention_types"):  # GPT-Neo, whose attention_layers are expanded from it
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    config.num_hidden_layers = len(kept)
