"""The attention function, its kernel and the plan of a packed row."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plad.errors import PolicyError
from plad.scoring import attention
from plad.scoring.attention import NAME, Kernel, plad_attention, plan_attention
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from plad.scoring.segments import SegmentPlan
from tests.support.scoring_families import some_groups, tiny

SHAPES = {"query": (1, 4, 7, 8), "key": (1, 2, 7, 8), "value": (1, 2, 7, 8)}


def draw(queries: int = 7, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Random query [1, 4, queries, 8], key and value [1, 2, keys, 8]."""
    make = torch.Generator().manual_seed(queries * 100 + keys)
    sizes = [(1, 4, queries, 8), (1, 2, keys, 8), (1, 2, keys, 8)]
    query, key, value = (torch.randn(size, generator=make, dtype=torch.float64) for size in sizes)
    return query, key, value


def by_hand(query: Tensor, key: Tensor, value: Tensor, kernel: Kernel, sees: Any) -> Tensor:
    """Attention, one query at a time: `sees(query index, key index)` says what is visible."""
    out = torch.zeros_like(query)
    per_group = query.shape[1] // key.shape[1]
    scale = kernel.scaling or query.shape[-1] ** -0.5
    for head in range(query.shape[1]):
        for i in range(query.shape[2]):
            seen = [j for j in range(key.shape[2]) if sees(i, j)]
            scores = [float(query[0, head, i] @ key[0, head // per_group, j]) * scale for j in seen]
            if kernel.softcap is not None:
                scores = [kernel.softcap * math.tanh(s / kernel.softcap) for s in scores]
            total = sum(math.exp(s) for s in scores)
            for j, s in zip(seen, scores, strict=True):
                out[0, head, i] += math.exp(s) / total * value[0, head // per_group, j]
    return out


KERNELS = {
    "bare": Kernel(None, 0.0, None, None),
    "scaled": Kernel(0.7, 0.0, None, None),
    "windowed": Kernel(None, 0.0, 3, None),
    "capped": Kernel(0.9, 0.0, None, 0.8),
    "windowed and capped": Kernel(0.9, 0.0, 3, 0.8),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (3, 7), (1, 7), (2, 2)])
def test_causal_attention_equals_the_sum_written_out(kernel: Kernel, queries: int, keys: int) -> None:
    query, key, value = draw(queries, keys)
    window = kernel.sliding_window or keys

    def sees(i: int, j: int) -> bool:
        at = keys - queries + i
        return at - window < j <= at

    found = kernel.causal(query, key, value)
    torch.testing.assert_close(found, by_hand(query, key, value, kernel, sees), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 7)])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_queries_of_a_long_sequence_are_cut_and_each_part_sees_no_key_after_it(
    kernel: Kernel, queries: int, keys: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, value = draw(queries, keys)
    expected = kernel.causal(query, key, value)
    monkeypatch.setattr(attention, "_CPU_QUERIES", at_once)
    calls: list[tuple[int, int]] = []
    product = nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append((query.shape[2], key.shape[2]))
        return product(query, key, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)

    torch.testing.assert_close(kernel.causal(query, key, value), expected, rtol=0, atol=1e-12)
    if kernel.softcap is None:
        ends = [*range(at_once, queries, at_once), queries]
        assert [size for _, size in calls] == [keys - queries + end for end in ends]
        assert max(size for size, _ in calls) == at_once


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_a_plan_shows_each_completion_its_prompt_and_itself(kernel: Kernel) -> None:
    """Groups of 3 + (2 | 1) and 2 + (1 | 2) read tokens: owner and position of the 11 tokens are written out."""
    groups = [Group("a", (1, 1, 1), ((1, 1, 1), (1, 1))), Group("b", (1, 1), ((1, 1), (1, 1, 1)))]
    group = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    owner = [0, 0, 0, 1, 1, 2, 0, 0, 1, 2, 2]
    position = [0, 1, 2, 3, 4, 3, 0, 1, 2, 2, 3]
    query, key, value = draw(11, 11)
    window = kernel.sliding_window or 11

    def sees(i: int, j: int) -> bool:
        near = position[i] - window < position[j] <= position[i]
        return near and group[i] == group[j] and owner[j] in (0, owner[i])

    found = SegmentPlan(groups, torch.device("cpu")).attend(0, query, key, value, kernel)
    torch.testing.assert_close(found, by_hand(query, key, value, kernel, sees), rtol=0, atol=1e-12)


def test_a_window_as_long_as_the_longest_branch_hides_nothing_and_one_shorter_does() -> None:
    groups = [Group("a", (1, 1, 1), ((1, 1, 1), (1, 1)))]
    query, key, value = draw(6, 6)

    def attend(window: int | None) -> Tensor:
        return SegmentPlan(groups, torch.device("cpu")).attend(0, query, key, value, Kernel(None, 0.0, window, None))

    assert torch.equal(attend(5), attend(None))
    assert not torch.allclose(attend(4), attend(None))


class _Layer(nn.Module):
    layer_idx = 0


def call(**keywords: Any) -> Tensor:
    plan = SegmentPlan([Group("a", (1,) * 7, ((1,),))], torch.device("cpu"))
    return plad_attention(_Layer(), *draw(), **{"plad_plan": plan, **keywords})[0]


@pytest.mark.parametrize("keyword", ["s_aux", "position_bias", "sinks", "head_mask", "block_mask"])
def test_an_attention_keyword_that_is_not_understood_is_refused(keyword: str) -> None:
    with pytest.raises(PolicyError, match=f"keywords .*{keyword}.* are not understood"):
        call(**{keyword: torch.zeros(4)})


def test_a_keyword_without_a_value_changes_nothing() -> None:
    assert torch.equal(call(s_aux=None, position_ids=torch.arange(7)), call())


def test_a_mask_beside_the_plan_is_refused() -> None:
    with pytest.raises(PolicyError, match="mask was given beside the plan"):
        call(attention_mask=torch.ones(1, 1, 7, 7))


def test_attention_without_a_plan_is_refused() -> None:
    with pytest.raises(PolicyError, match="no plad_plan"):
        call(plad_plan=None)


def test_a_model_called_without_a_plan_is_refused() -> None:
    model = tiny("llama")
    with plan_attention(model), pytest.raises(PolicyError, match="no plad_plan"):
        model(input_ids=torch.tensor([[3, 4, 5]]))


def test_the_models_own_attention_comes_back_after_the_block_and_after_an_error() -> None:
    model = tiny("llama")
    before = model.config._attn_implementation
    with plan_attention(model):
        with plan_attention(model):
            assert model.config._attn_implementation == NAME
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == before
    with pytest.raises(RuntimeError), plan_attention(model):
        raise RuntimeError
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("family", ["gpt_neo", "bloom"])
def test_a_model_whose_attention_cant_be_replaced_is_refused(family: str) -> None:
    with pytest.raises(PolicyError, match="can't be replaced"), plan_attention(tiny(family)):
        pass


def test_the_layers_dropout_reaches_the_kernel_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    attend = SegmentPlan.attend

    def spy(self: SegmentPlan, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        seen.append(kernel.dropout)
        return attend(self, layer, query, key, value, kernel)

    monkeypatch.setattr(SegmentPlan, "attend", spy)
    model, groups = tiny("llama", attention_dropout=0.25), some_groups()
    still = score(model, groups, route=Route.SEGMENTS).logps
    model.train()
    torch.manual_seed(1)
    moved = score(model, groups, route=Route.SEGMENTS).logps
    assert seen == [0.0, 0.0, 0.25, 0.25]
    assert not torch.allclose(still, moved)
