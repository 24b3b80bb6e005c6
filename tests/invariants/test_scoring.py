"""Every route of the scoring core gives the numbers of the plain forward, one sequence at a time."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from plad.errors import PolicyError
from plad.scoring.attention import plan_attention
from plad.scoring.layout import Group, pack
from plad.scoring.score import Route, choose_route, score
from tests.support.scoring_families import (
    ENCODER_DECODERS,
    FAMILIES,
    ROUTES,
    gradients,
    plain_output,
    plain_sums,
    routes,
    some_groups,
    tiny,
    widen,
)

LLAMA = routes("llama")
BOTH = [(family, route) for family in ("llama", "t5") for route in routes(family)]
WEIGHTS = torch.linspace(-1.0, 1.3, 9, dtype=torch.float64)


def scored(model: nn.Module, groups: Sequence[Group], route: Route, max_tokens: int | None) -> Tensor:
    """[M] log-probabilities of the completions, packed into rows of at most `max_tokens`."""
    return torch.cat([score(model, row, route=route).sums() for row in pack(groups, max_tokens)])


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Greatest error of a gradient, relative to the greatest gradient."""
    assert found.keys() == expected.keys()
    scale = max(float(g.abs().max()) for g in expected.values())
    return max(float((found[name] - g).abs().max()) for name, g in expected.items()) / scale


@pytest.mark.parametrize(("family", "route"), ROUTES)
def test_values_and_gradients_equal_the_plain_forward_in_float64(
    family: str, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, groups = tiny(family), some_groups()
    widen(monkeypatch, model)
    expected = plain_sums(model, groups)
    gradient = gradients(model, (expected * WEIGHTS).sum())
    for max_tokens in (None, 40, 1000):
        found = scored(model, groups, route, max_tokens)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        assert relative(gradients(model, (found * WEIGHTS).sum()), gradient) < 1e-9


@pytest.mark.parametrize(("family", "route"), ROUTES)
def test_values_equal_the_plain_forward_in_float32(family: str, route: Route) -> None:
    model, groups = tiny(family, torch.float32), some_groups()
    with torch.no_grad():
        expected = plain_sums(model, groups)
        found = scored(model, groups, route, 1000).to(torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


WITHOUT: dict[str, dict[str, Any]] = {
    "qwen2_window": {"use_sliding_window": False, "layer_types": ["full_attention"] * 2},
    "mistral": {"sliding_window": None},
    "gemma2": {"attn_logit_softcapping": None},
    "gemma3": {"layer_types": ["full_attention"] * 2},
    "gpt2": {"scale_attn_by_inverse_layer_idx": False},
    "gpt_neo": {"window_size": 100},
    "gpt_oss": {"layer_types": ["full_attention"] * 2},
    "phi3": {"sliding_window": None},
    "t5": {"tie_word_embeddings": False},
    "mt5": {"relative_attention_max_distance": 100},
    "bart": {"scale_embedding": False},
}


@pytest.mark.parametrize(("family", "changes"), WITHOUT.items(), ids=WITHOUT.keys())
def test_without_its_window_cap_or_scale_a_tiny_model_scores_differently(family: str, changes: dict[str, Any]) -> None:
    """Else the tests above would not notice an attention function that leaves them out."""
    with torch.no_grad():
        usual, changed = (plain_sums(tiny(family, **kw), some_groups()) for kw in ({}, changes))
    assert (usual - changed).abs().max() > 1e-3


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt_oss"])
def test_the_fastest_route_is_chosen(family: str) -> None:
    assert choose_route(tiny(family)) is routes(family)[0]


def test_a_chunked_or_recurrent_layer_is_not_packed() -> None:
    model = tiny("llama")
    model.config.layer_types = ["full_attention", "chunked_attention"]
    assert choose_route(model) is Route.CACHE


def test_an_encoder_decoder_without_a_start_token_is_refused() -> None:
    model = tiny("t5")
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(PolicyError, match="decoder_start_token_id"):
        score(model, some_groups())


@pytest.mark.parametrize(("family", "route"), BOTH)
def test_log_probabilities_come_token_by_token_in_the_order_of_the_groups(family: str, route: Route) -> None:
    model, groups = tiny(family), some_groups()
    found = score(model, groups, route=route)
    expected = []
    with torch.no_grad():
        for group in groups:
            for completion in group.completions:
                logits, at = plain_output(model, group.prompt, completion)
                expected += [logits[0, at].log_softmax(-1)[i, t] for i, t in enumerate(completion)]
    torch.testing.assert_close(found.logps.detach(), torch.stack(expected), rtol=0, atol=1e-9)
    assert found.sizes == [len(g.completions) for g in groups]
    assert found.lengths.tolist() == [len(c) for g in groups for c in g.completions]
    parts = found.logps.split(found.lengths.tolist())
    torch.testing.assert_close(found.sums(), torch.stack([p.sum() for p in parts]))
    torch.testing.assert_close(found.means(), torch.stack([p.mean() for p in parts]))


def test_the_backbone_reads_each_prompt_once_and_the_head_each_predicting_position_once() -> None:
    model, groups = tiny("llama"), some_groups()
    read, projected = [], []
    model.model.embed_tokens.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].numel()))
    model.lm_head.register_forward_hook(lambda _m, inputs, _o: projected.append(inputs[0].shape[:-1].numel()))
    score(model, groups, route=Route.SEGMENTS)
    assert read == [sum(len(g.prompt) + sum(len(c) - 1 for c in g.completions) for g in groups)]
    assert projected == [sum(1 + sum(len(c) - 1 for c in g.completions) for g in groups)]


def test_the_cache_route_reads_a_prompt_once() -> None:
    model = tiny("gpt_neo")
    group = Group("g", (5,) * 20, ((6, 7, 8), (9, 10)))
    read: list[tuple[int, ...]] = []
    model.transformer.wte.register_forward_hook(lambda _m, inputs, _o: read.append(tuple(inputs[0].shape)))
    score(model, [group], route=Route.CACHE)
    assert read == [(1, 20), (2, 2)]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_prompt_is_encoded_once_and_the_head_sees_each_predicting_position_once(family: str) -> None:
    model, groups = tiny(family), some_groups()
    reads: dict[str, list[tuple[int, ...]]] = {"encoder": [], "cross": [], "head": []}
    encoder = model.get_encoder()
    layers = model.model.decoder.layers if family == "bart" else model.decoder.block
    cross = layers[0].encoder_attn.k_proj if family == "bart" else layers[0].layer[1].EncDecAttention.k
    for name, module in (("encoder", encoder.embed_tokens), ("cross", cross), ("head", model.lm_head)):
        module.register_forward_hook(lambda _m, inputs, _o, name=name: reads[name].append(tuple(inputs[0].shape[:2])))
    for group in groups:
        score(model, [group], route=Route.ENCODER)
    assert reads["encoder"] == reads["cross"] == [(1, len(g.prompt)) for g in groups]
    assert sum(n for _, n in reads["head"]) == sum(1 + sum(g.branches) for g in groups)


@pytest.mark.parametrize(("family", "route"), BOTH)
def test_a_completion_does_not_depend_on_its_neighbours(family: str, route: Route) -> None:
    model = tiny(family)
    prompt, completion, other = (5, 6, 7, 8), (9, 10, 11), (12, 13, 14, 15)
    alone = score(model, [Group("a", prompt, (completion,))], route=route).sums()
    for completions, index in (((completion, other), 0), ((other, completion), 1), ((other, completion, other), 1)):
        groups = [Group("n", other, (other,)), Group("a", prompt, completions), Group("m", other, (other,))]
        torch.testing.assert_close(score(model, groups, route=route).sums()[1 + index : 2 + index], alone)


@pytest.mark.parametrize(("family", "route"), BOTH)
def test_an_empty_completion_scores_zero_and_never_nan(family: str, route: Route) -> None:
    model = tiny(family)
    mixed = score(model, [Group("a", (5, 6), ((), (7, 8), ())), Group("b", (5,), ((),))], route=route)
    expected = plain_sums(model, [Group("a", (5, 6), ((7, 8),))])
    torch.testing.assert_close(mixed.sums()[1:2], expected)
    assert mixed.sums()[[0, 2, 3]].tolist() == mixed.means()[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    nothing = score(model, [Group("b", (5, 6), ((), ()))], route=route)
    gradient = gradients(model, nothing.means().sum())
    assert nothing.means().tolist() == [0.0, 0.0]
    assert not any(g.any() for g in gradient.values())


def test_the_models_own_attention_is_back_after_scoring() -> None:
    model = tiny("llama")
    before = model.config._attn_implementation
    score(model, some_groups())
    assert model.config._attn_implementation == before
    model(input_ids=torch.tensor([[4, 5]]))


def with_lora(family: str) -> peft.PeftModel:
    """A tiny model with a random LoRA adapter on its query and value projections."""
    targets = ["q", "v"] if family == "t5" else ["q_proj", "v_proj"]
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=targets,
        task_type="SEQ_2_SEQ_LM" if family in ENCODER_DECODERS else "CAUSAL_LM",
    )
    torch.manual_seed(1)
    model = peft.get_peft_model(tiny(family), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight.data) / 2
    return model.double().eval()  # type: ignore[return-value]


@pytest.mark.parametrize(("family", "route"), [*BOTH, ("gpt_neo", Route.CACHE), ("bart", Route.ENCODER)])
def test_a_lora_model_scores_as_by_its_plain_forward(
    family: str, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, groups = with_lora(family), some_groups()
    widen(monkeypatch, model.get_base_model())  # type: ignore[arg-type]
    expected = plain_sums(model, groups)
    assert not torch.allclose(expected, plain_sums(tiny(family), groups))
    gradient = gradients(model, (expected * WEIGHTS).sum())
    found = scored(model, groups, route, 1000)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert relative(gradients(model, (found * WEIGHTS).sum()), gradient) < 1e-9
    assert all("lora_" in name for name in gradient)
    assert choose_route(model) is routes(family)[0]


def recompute(model: Any) -> list[int]:
    """Switch gradient checkpointing on; counts the calls of the first layer."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    calls: list[int] = []
    if hasattr(model, "shared"):
        model.encoder.block[0].layer[0].layer_norm.register_forward_hook(lambda *_: calls.append(0))
        return calls
    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    norm = layers[0].ln_1 if hasattr(layers[0], "ln_1") else layers[0].input_layernorm
    norm.register_forward_hook(lambda _m, inputs, _o: calls.append(inputs[0].shape[1]))
    return calls


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "t5", "flan_t5"])
def test_gradient_checkpointing_gives_the_same_numbers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    still: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    model, groups = tiny(family, **still), some_groups()
    widen(monkeypatch, model)
    expected = score(model, groups).sums()
    gradient = gradients(model, (expected * WEIGHTS).sum())
    calls = recompute(model)
    with plan_attention(model) if family not in ENCODER_DECODERS else nullcontext():
        found = score(model, groups).sums()
        found_gradient = gradients(model, (found * WEIGHTS).sum())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert relative(found_gradient, gradient) < 1e-9
    assert len(calls) == 2, "the backward pass recomputes the layer"


def test_gradient_checkpointing_is_refused_where_the_backward_pass_would_use_other_attention() -> None:
    model = tiny("llama")
    recompute(model)
    with pytest.raises(PolicyError, match="plan_attention"):
        score(model, some_groups())
    with torch.no_grad():
        score(model, some_groups())


def test_gradient_checkpointing_on_the_cache_route_reads_whole_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt_neo", resid_dropout=0.0, embed_dropout=0.0, attention_dropout=0.0)
    widen(monkeypatch, model)
    groups = some_groups()
    expected = plain_sums(model, groups)
    gradient = gradients(model, (expected * WEIGHTS).sum())
    recompute(model)
    found = score(model, groups, route=Route.CACHE).sums()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert relative(gradients(model, (found * WEIGHTS).sum()), gradient) < 1e-9


def test_a_model_that_keeps_no_logits_selectively_is_scored_all_the_same() -> None:
    class All(transformers.LlamaForCausalLM):
        def forward(  # type: ignore[override]
            self,
            input_ids: Any,
            position_ids: Any = None,
            past_key_values: Any = None,
            use_cache: bool = True,
            plad_plan: Any = None,
        ) -> Any:
            extra = {} if plad_plan is None else {"plad_plan": plad_plan}
            return super().forward(
                input_ids=input_ids,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **extra,
            )

    usual, groups = tiny("llama"), some_groups()
    model = All(usual.config).double().eval()
    model.load_state_dict(usual.state_dict())
    for route in LLAMA if choose_route(model) is Route.SEGMENTS else (Route.CACHE, Route.PLAIN):
        torch.testing.assert_close(score(model, groups, route=route).logps, score(usual, groups).logps)
