"""Pruned students: the layers of least influence go, everything else stays as it was."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from plad.config.models import LoraSection, ModelSection
from plad.errors import PolicyError
from plad.policy.load import attach, load_policy, merge_lora, save_policy
from plad.policy.prune import drop_layers, find_layers, layer_influence, prune_layers
from tests.support.tiny_models import FAMILIES, TEXTS, tiny_model, tiny_policy

IDS = torch.randint(6, 300, (1, 20), generator=torch.Generator().manual_seed(0))


def silence(model: PreTrainedModel, number: int) -> None:
    """Make a layer the identity: with every weight zero it adds nothing to the residual stream."""
    with torch.no_grad():
        for weight in find_layers(model)[2][number].parameters():
            weight.zero_()


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_a_layer_that_does_nothing_changes_nothing(family: str, tmp_path: Path) -> None:
    policy = tiny_policy(family, layers=4)
    silence(policy.model, 1)
    influence = layer_influence(policy, TEXTS)
    assert influence[1] == pytest.approx(0, abs=1e-6)
    assert all(value > 1e-5 for i, value in enumerate(influence) if i != 1)
    before = policy.model(IDS).logits

    pruned = prune_layers(policy, 3, TEXTS)

    assert len(find_layers(pruned.model)[2]) == pruned.model.config.num_hidden_layers == 3
    torch.testing.assert_close(pruned.model(IDS).logits, before, atol=1e-5, rtol=1e-5)
    assert pruned.notes[-1] == "pruned to 3 of 4 layers on 3 prompts; dropped 1"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_model_saves_and_reloads_with_equal_outputs(family: str, tmp_path: Path) -> None:
    pruned = prune_layers(tiny_policy(family, layers=4), 2, TEXTS[:1])
    save_policy(pruned, tmp_path / "m")
    again = load_policy(ModelSection(model=str(tmp_path / "m")))
    assert torch.equal(again.model(IDS).logits, pruned.model(IDS).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_model_generates_alike_with_and_without_its_cache(family: str) -> None:
    pruned = drop_layers(tiny_model(family, layers=4), [1, 3])
    with torch.no_grad():
        prefix = pruned(IDS[:, :12], use_cache=True)
        rest = pruned(IDS[:, 12:], past_key_values=prefix.past_key_values, use_cache=True).logits
        whole = pruned(IDS, use_cache=False).logits
    torch.testing.assert_close(rest, whole[:, 12:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "gpt_neo", "llama"])
def test_kept_layers_keep_their_order_weights_and_kind(family: str) -> None:
    model = tiny_model(family, layers=4)
    source = find_layers(model)[2]
    pruned = drop_layers(model, [1, 2])
    for kept, number in zip(find_layers(pruned)[2], (1, 2), strict=True):
        for mine, theirs in zip(kept.parameters(), source[number].parameters(), strict=True):
            assert torch.equal(mine, theirs)
    config = model.config
    if family == "gemma2":
        assert pruned.config.layer_types == config.layer_types[1:3]
    if family == "gpt_neo":
        assert pruned.config.attention_layers == ["local", "global"]
        assert pruned.config.attention_types == [[["local"], 1], [["global"], 1]]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_source_keeps_its_layers_weights_and_config(family: str) -> None:
    policy = tiny_policy(family, layers=4)
    before, logits = weights(policy.model), policy.model(IDS).logits
    pruned = prune_layers(policy, 2, TEXTS)
    with torch.no_grad():
        for weight in pruned.model.parameters():
            weight.add_(1.0)
    after = policy.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert policy.model.config.num_hidden_layers == 4
    assert torch.equal(policy.model(IDS).logits, logits)


def test_influence_is_one_minus_the_mean_cosine_of_input_and_output() -> None:
    policy = tiny_policy(layers=3)
    ids = [policy.prompt.encode_prompt(text) for text in TEXTS]
    expected = torch.zeros(3)
    with torch.no_grad():
        for row in ids:
            backbone = policy.model.base_model
            last: list[torch.Tensor] = []  # hidden_states ends with the normed state; the last layer's own is hooked
            hook = backbone.layers[-1].register_forward_hook(lambda _m, _a, out, last=last: last.append(out))
            states = list(backbone(torch.tensor([row]), output_hidden_states=True).hidden_states)
            hook.remove()
            states[-1] = last[0] if isinstance(last[0], torch.Tensor) else last[0][0]
            for i in range(3):
                expected[i] += torch.cosine_similarity(states[i], states[i + 1], dim=-1).sum()
    expected = 1 - expected / sum(map(len, ids))
    assert layer_influence(policy, TEXTS) == pytest.approx(expected.tolist(), abs=1e-6)


def test_target_completions_count_when_given() -> None:
    policy = tiny_policy(layers=3)
    assert layer_influence(policy, TEXTS, ["An answer."] * 3) != layer_influence(policy, TEXTS)


def test_prompts_longer_than_the_context_are_cut() -> None:
    policy = tiny_policy("gpt2", layers=3, n_positions=16)
    assert all(value > 0 for value in layer_influence(policy, ["word " * 100]))


def test_measuring_leaves_no_hooks_and_the_mode_as_it_was() -> None:
    policy = tiny_policy(layers=3)
    policy.model.train()
    layer_influence(policy, TEXTS)
    assert policy.model.training
    assert not any(layer._forward_hooks for layer in find_layers(policy.model)[2])


@pytest.mark.parametrize("keep", [0, 3, 4])
def test_keeping_none_or_all_layers_is_refused(keep: int) -> None:
    with pytest.raises(PolicyError, match=f"can't keep {keep} of 3 layers"):
        prune_layers(tiny_policy(layers=3), keep, TEXTS)


def test_measuring_without_prompts_is_refused() -> None:
    with pytest.raises(PolicyError, match="at least one prompt"):
        prune_layers(tiny_policy(layers=3), 2, [])


def test_an_adapter_must_be_merged_before_pruning() -> None:
    policy = attach(tiny_policy(layers=3), LoraSection())
    with pytest.raises(PolicyError, match="merge the adapter first"):
        prune_layers(policy, 2, TEXTS)
    assert merge_lora(policy).model.config.num_hidden_layers == 3


def test_layers_whose_scale_depends_on_their_number_are_not_dropped() -> None:
    with pytest.raises(PolicyError, match="scale_attn_by_inverse_layer_idx"):
        drop_layers(tiny_model("gpt2", layers=3, scale_attn_by_inverse_layer_idx=True), [0, 1])


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    model = tiny_model(layers=3)
    model.model.layers = torch.nn.Sequential(*model.model.layers)  # type: ignore[assignment]
    with pytest.raises(PolicyError, match="can't be found"):
        find_layers(model)
