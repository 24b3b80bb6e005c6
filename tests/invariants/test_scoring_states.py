"""The states behind every prediction: the same by every route, and the model's head makes its logits of them."""

from dataclasses import replace

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from plad.errors import PolicyError
from plad.scoring.head import check_head, head_logits
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from tests.support.scoring_families import (
    FAMILIES,
    ROUTES,
    VOCAB,
    gradients,
    plain_output,
    routes,
    some_groups,
    tiny,
    widen,
)


def plain(model: nn.Module, groups: list[Group]) -> tuple[Tensor, Tensor]:
    """[N, H] states and [N, V] logits of every completion token, one sequence at a time by the ordinary forward."""
    seen: list[Tensor] = []
    states, logits = [], []
    with model.get_output_embeddings().register_forward_pre_hook(lambda _m, args: seen.append(args[0])):  # type: ignore[operator]
        for group in groups:
            for completion in group.completions:
                output, at = plain_output(model, group.prompt, completion)
                states.append(seen[-1][0, at])
                logits.append(output[0, at])
    return torch.cat(states), torch.cat(logits)


@pytest.mark.parametrize(("family", "route"), ROUTES)
def test_states_equal_the_plain_forward_with_and_without_the_head(
    family: str, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, groups = tiny(family), some_groups()
    widen(monkeypatch, model)
    expected, logits = plain(model, groups)
    usual = score(model, groups, route=route)
    both = score(model, groups, route=route, states=True)
    alone = score(model, groups, route=route, states=True, logits=False)
    assert usual.states is None
    assert both.states is not None
    assert alone.states is not None
    torch.testing.assert_close(both.states, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(alone.states, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(both.logps, usual.logps, rtol=0, atol=1e-12)
    torch.testing.assert_close(head_logits(model, alone.states), logits, rtol=0, atol=1e-9)
    assert alone.logps.numel() == 0
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    gradient = gradients(model, (expected * weights).sum())
    found = gradients(model, (alone.states * weights).sum())
    for name, value in gradient.items():
        if name in found:
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        else:
            assert not value.any(), f"{name} has no gradient"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_of_every_family_makes_its_logits_of_its_states(family: str) -> None:
    check_head(tiny(family), some_groups()[0])


def test_the_check_leaves_the_model_in_the_mode_it_was_in() -> None:
    model = tiny("llama").train()
    check_head(model, some_groups()[0])
    assert model.training


def test_the_head_costs_nothing_where_no_logits_are_wanted() -> None:
    model, projected = tiny("llama"), []
    model.lm_head.register_forward_hook(lambda _m, inputs, _o: projected.append(inputs[0].numel()))
    for route in routes("llama"):
        score(model, some_groups(), route=route, states=True, logits=False)
    assert set(projected) == {0}


@pytest.mark.parametrize(
    ("name", "changes"), [("Granite", {"logits_scaling": 3.0}), ("Cohere", {"logit_scale": 0.3})], ids=str
)
def test_scaled_logits_are_reproduced(name: str, changes: dict[str, float]) -> None:
    small = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{name}Config")(**small, **changes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).double().eval()
    check_head(model, some_groups()[0])
    states, logits = plain(model, some_groups())
    torch.testing.assert_close(head_logits(model, states), logits, rtol=0, atol=1e-9)
    assert (model.get_output_embeddings()(states) - logits).abs().max() > 1e-3


class Shifted(transformers.LlamaForCausalLM):
    """Adds something to its logits of which no configuration speaks."""

    def forward(self, **inputs: object) -> CausalLMOutputWithPast:  # type: ignore[override]
        output = super().forward(**inputs)  # type: ignore[arg-type]
        output.logits = output.logits + torch.arange(VOCAB)
        return output


def test_a_head_whose_logits_cannot_be_reproduced_is_refused() -> None:
    with pytest.raises(PolicyError, match="the largest difference is 60"):
        check_head(Shifted(tiny("llama").config).eval(), some_groups()[0])


class Twice(transformers.LlamaForCausalLM):
    """Calls its head twice."""

    def forward(self, **inputs: object) -> CausalLMOutputWithPast:  # type: ignore[override]
        super().forward(**inputs)  # type: ignore[arg-type]
        return super().forward(**inputs)  # type: ignore[arg-type]


def test_a_head_that_is_called_twice_is_refused() -> None:
    model = Twice(tiny("llama").config).eval()
    with pytest.raises(PolicyError, match="called 2 times"):
        check_head(model, some_groups()[0])
    with pytest.raises(PolicyError, match="2 times"):
        score(model, some_groups(), route=Route.PLAIN, states=True)


def test_a_model_without_a_head_is_refused() -> None:
    model = transformers.LlamaModel(tiny("llama").config).eval()
    with pytest.raises(PolicyError, match="no output head"):
        check_head(model, some_groups()[0])


@pytest.mark.parametrize("kind", [{"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_an_adapter_on_the_head_belongs_to_it(kind: dict[str, list[str]]) -> None:
    base = tiny("llama")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, **{"target_modules": ["q_proj"], **kind})).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and ("lora_" in name or "lm_head" in name):
                weight.add_(torch.randn_like(weight) / 2)
    check_head(model, some_groups()[0])
    states, logits = plain(model, some_groups())
    for route in routes("llama"):
        found = score(model, some_groups(), route=route, states=True, logits=False).states
        assert found is not None
        torch.testing.assert_close(head_logits(model, found), logits, rtol=1e-6, atol=1e-6)
    assert (head_logits(tiny("llama"), states) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("route", routes("llama"))
def test_a_text_that_is_only_read_has_states_and_changes_nothing_of_the_others(route: Route) -> None:
    """Its place among the completions is the last; the head computes none of its logits on the packed route."""
    model, projected = tiny("llama"), []
    groups = some_groups()
    more = [replace(g, completions=(*g.completions, (7, 8, 9, 7)), context=1) for g in groups]
    expected, read = score(model, groups, route=route), score(model, more, route=route)
    model.lm_head.register_forward_hook(lambda _m, inputs, _o: projected.append(inputs[0].shape[1]))
    found = score(model, more, route=route, states=True)
    own = torch.cat([torch.arange(len(g.completions)) < g.candidates for g in more])
    torch.testing.assert_close(found.sums()[own], expected.sums(), rtol=0, atol=1e-12)
    torch.testing.assert_close(read.sums()[own], expected.sums(), rtol=0, atol=1e-12)
    assert found.states is not None
    torch.testing.assert_close(found.states, plain(model, more)[0], rtol=0, atol=1e-9)
    if route is Route.SEGMENTS:
        assert projected[0] == sum(1 + sum(g.branches) for g in groups)
