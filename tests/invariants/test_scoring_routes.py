"""The check at start-up: a route that is wrong for a model is found out, said, and not used."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from plad.errors import PolicyError
from plad.scoring import encoder_decoder, head
from plad.scoring import score as core
from plad.scoring.attention import Kernel
from plad.scoring.layout import Group
from plad.scoring.score import Route, checked_route, score
from plad.scoring.segments import SegmentPlan
from tests.support.scoring_families import FAMILIES, plain_sums, routes, some_groups, tiny

PAIR = some_groups()[0]
SINGLE = Group("single", PAIR.prompt, PAIR.completions[:1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt_oss"])
def test_a_sound_route_is_kept_in_silence(family: str, dtype: torch.dtype) -> None:
    log: list[str] = []
    range_ = {"gpt_neo": {"initializer_range": 0.02}, "bloom": {"initializer_range": 0.02}}.get(family, {})
    expected = routes(family)[0]
    assert checked_route(tiny(family, dtype, **range_), PAIR, log.append) is expected
    assert log == []


def test_attention_sinks_are_refused_and_the_cache_is_used() -> None:
    log: list[str] = []
    model = tiny("gpt_oss")
    assert checked_route(model, PAIR, log.append) is Route.CACHE
    assert len(log) == 1
    assert "segments route is not used" in log[0]
    assert "s_aux" in log[0]
    assert "\n" not in log[0]
    torch.testing.assert_close(score(model, [PAIR], route=Route.CACHE).sums(), plain_sums(model, [PAIR]))


@pytest.mark.parametrize("group", [PAIR, SINGLE], ids=["pair", "single"])
def test_completions_that_see_each_other_are_found_out(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = SegmentPlan._visible

    def everything_before(self: SegmentPlan, index: int, window: int | None) -> Tensor:
        visible = hidden(self, index, window)
        at = torch.arange(visible.shape[1])
        return at <= at[-len(visible) :, None]

    monkeypatch.setattr(SegmentPlan, "_visible", everything_before)
    log: list[str] = []
    assert checked_route(tiny("llama"), group, log.append) is Route.CACHE
    assert len(log) == 1
    assert "differ by" in log[0]


def test_a_window_that_is_ignored_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = SegmentPlan.attend

    def without_window(
        self: SegmentPlan, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel
    ) -> Tensor:
        wide = Kernel(kernel.scaling, kernel.dropout, None, kernel.softcap)
        return attend(self, layer, query, key, value, wide)

    monkeypatch.setattr(SegmentPlan, "attend", without_window)
    log: list[str] = []
    assert checked_route(tiny("mistral"), PAIR, log.append) is Route.CACHE
    assert len(log) == 1


def test_a_group_that_sees_the_one_before_it_in_the_row_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = SegmentPlan.attend

    def leaking(self: SegmentPlan, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        out = attend(self, layer, query, key, value, kernel)
        later = torch.arange(out.shape[2])[:, None] >= self._groups[0]
        return out + later * out[:, :, :1]

    monkeypatch.setattr(SegmentPlan, "attend", leaking)
    log: list[str] = []
    assert checked_route(tiny("llama"), PAIR, log.append) is Route.CACHE
    assert len(log) == 1


class _Shift(nn.Module):
    """A token-mixing layer that attention plans and caches know nothing of: adds the state of the token before."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.inner(ids)
        return hidden + nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]


@pytest.mark.parametrize("group", [PAIR, SINGLE], ids=["pair", "single"])
def test_a_model_that_can_share_nothing_takes_the_plain_forward(group: Group) -> None:
    model = tiny("llama")
    model.model.embed_tokens = _Shift(model.model.embed_tokens)
    log: list[str] = []
    assert checked_route(model, group, log.append) is Route.PLAIN
    assert [line.split(" route")[0] for line in log] == [
        "LlamaForCausalLM: the segments",
        "LlamaForCausalLM: the cache",
    ]
    torch.testing.assert_close(score(model, some_groups(), route=Route.PLAIN).sums(), plain_sums(model, some_groups()))


def test_an_encoder_that_reads_padding_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of unlike lengths are one batch: what fills up the shorter one must not be seen."""
    encode = encoder_decoder.encode
    monkeypatch.setattr(encoder_decoder, "encode", lambda *args: {"input_ids": encode(*args)["input_ids"]})
    for family in ("t5", "bart"):
        log: list[str] = []
        assert checked_route(tiny(family), PAIR, log.append) is Route.PLAIN
        assert len(log) == 1
        assert "the encoder route is not used: log-probabilities differ" in log[0]


def test_a_cache_that_gives_nan_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = core._cached
    monkeypatch.setattr(core, "_cached", lambda *args: [found * float("nan") for found in cached(*args)])
    log: list[str] = []
    assert checked_route(tiny("bloom"), PAIR, log.append) is Route.PLAIN
    assert len(log) == 1
    assert "nan" in log[0]


def test_a_model_that_gives_nan_is_refused() -> None:
    model = tiny("llama")
    model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(PolicyError, match="aren't finite"):
        checked_route(model, PAIR, print)


def test_a_model_that_no_route_reproduces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "log_probs", lambda logits, sources, targets: logits[sources, targets])
    log: list[str] = []
    with pytest.raises(PolicyError, match="no route"):
        checked_route(tiny("llama"), PAIR, log.append)
    assert len(log) == 3


def test_dropout_does_not_disturb_the_check_and_every_modules_mode_comes_back() -> None:
    model = tiny("gpt2", torch.float64)  # GPT-2 drops a tenth of everything in training
    model.train()
    frozen = model.transformer.h[0].mlp
    frozen.eval()
    before = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    log: list[str] = []
    assert checked_route(model, PAIR, log.append) is Route.SEGMENTS
    assert log == []
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_comes_back_after_an_error() -> None:
    model = tiny("llama").train()
    model.lm_head.weight.data[3] = float("nan")
    with pytest.raises(PolicyError):
        checked_route(model, PAIR, print)
    assert model.training


def test_the_check_works_with_gradient_checkpointing_on() -> None:
    model = tiny("llama")
    model.gradient_checkpointing_enable()
    model.train()
    log: list[str] = []
    assert checked_route(model, PAIR, log.append) is Route.SEGMENTS
    assert log == []


def test_a_group_without_tokens_to_score_is_checked_without_a_division_by_zero() -> None:
    log: list[str] = []
    assert checked_route(tiny("llama"), Group("empty", (4, 5), ((),)), log.append) is Route.SEGMENTS
    assert log == []


def test_other_decoders_take_the_route_their_check_allows() -> None:
    """A mixture of experts, and a recurrent model without attention."""
    small: dict[str, Any] = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2}
    experts = transformers.MixtralConfig(
        **small,
        intermediate_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        num_experts_per_tok=1,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    log: list[str] = []
    assert checked_route(transformers.MixtralForCausalLM(experts).eval(), PAIR, log.append) is Route.SEGMENTS
    assert log == []
    recurrent = transformers.MambaForCausalLM(transformers.MambaConfig(**small, state_size=4)).eval()
    assert checked_route(recurrent, PAIR, log.append) in (Route.CACHE, Route.PLAIN)
