"""The last layer: what is left out, where, and that nothing else is."""

import pytest
import torch
from torch import Tensor, nn

from plad.config.models import LoraSection
from plad.policy.lora import attach
from plad.scoring.attention import plan_attention
from plad.scoring.last_layer import last_layer, read_at
from plad.scoring.score import score
from tests.support.scoring_families import gradients, plain_sums, some_groups, tiny, widen

GROUPS = some_groups()
TOKENS = sum(group.tokens for group in GROUPS)
READ = sum(1 + sum(group.branches) for group in GROUPS)


def _lengths(model: nn.Module, name: str, layers: int = 2) -> list[list[int]]:
    """Fills with the length of each layer's input to the module `name`."""
    seen: list[list[int]] = [[] for _ in range(layers)]
    for path, module in model.named_modules():
        if path.endswith(f".{name}"):
            index = next(int(part) for part in path.split(".") if part.isdigit())
            inner = getattr(module, "down_proj", module)
            inner.register_forward_pre_hook(lambda m, args, index=index: seen[index].append(args[0].shape[1]))
    return seen


@pytest.mark.parametrize("name", ["mlp", "self_attn.o_proj", "self_attn.k_proj"])
def test_only_positions_that_are_read_go_through_the_last_layer(name: str) -> None:
    """Keys are needed of every token; the attention's output and the feed-forward of those that are read."""
    model = tiny("llama")
    seen = _lengths(model, name)

    score(model, GROUPS)

    # hooks run in the order they were added: o_proj's length is seen before it is narrowed
    expected = READ if name == "mlp" else TOKENS
    assert seen == [[TOKENS], [expected]]


def test_the_prompts_queries_of_the_last_layer_are_not_attended(monkeypatch: pytest.MonkeyPatch) -> None:
    from plad.scoring.attention import Kernel

    causal, queries = Kernel.causal, []

    def counted(self: Kernel, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        queries.append(query.shape[2])
        return causal(self, query, key, value)

    monkeypatch.setattr(Kernel, "causal", counted)

    score(tiny("llama"), GROUPS)

    assert queries == [len(group.prompt) for group in GROUPS] + [1] * len(GROUPS)


def test_values_and_gradients_are_those_of_the_whole_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = tiny("llama"), tiny("llama")
    widen(monkeypatch, model)

    expected, found = plain_sums(plain, GROUPS), score(model, GROUPS).sums()

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    ours, theirs = gradients(model, found.square().sum()), gradients(plain, expected.square().sum())
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


def test_adapters_of_the_last_layer_are_narrowed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    section = LoraSection.model_validate({"dropout": 0.0})
    model, _ = attach(tiny("llama"), section)
    widen(monkeypatch, model.get_base_model())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    expected = plain_sums(model, GROUPS)

    torch.testing.assert_close(score(model, GROUPS).sums(), expected, rtol=0, atol=1e-9)


def test_the_model_is_whole_again_afterwards() -> None:
    model = tiny("llama")
    ids = torch.arange(3, 20)[None]
    before = model(input_ids=ids).logits

    with read_at(model, torch.tensor([16]), 17):
        narrowed = model(input_ids=ids).logits

    assert model(input_ids=ids).logits.equal(before)
    torch.testing.assert_close(narrowed[:, 16], before[:, 16])
    assert not torch.allclose(narrowed[:, 3], before[:, 3])


def test_nothing_is_left_out_where_layers_are_recomputed() -> None:
    model = tiny("llama").train()
    model.gradient_checkpointing_enable()
    seen = _lengths(model, "mlp")

    with plan_attention(model):
        score(model, GROUPS).sums().sum().backward()

    assert seen == [[TOKENS, TOKENS], [TOKENS, TOKENS]]


@pytest.mark.parametrize(
    ("family", "expected"), [("llama", 1), ("gemma3", 1), ("gpt2", 1), ("opt", 1), ("gpt_oss", 1), ("bloom", 1)]
)
def test_the_last_layer_is_found_in_every_family(family: str, expected: int) -> None:
    assert last_layer(tiny(family)) == expected


def test_a_mixture_of_experts_keeps_its_feed_forward_whole() -> None:
    from plad.scoring.last_layer import _modules

    layer = tiny("gpt_oss").model.layers[-1]

    assert layer.mlp not in _modules(layer)
    assert layer.self_attn.o_proj in _modules(layer)
