"""The slot sampler: what is computed, how a token is chosen, and what is left behind."""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedModel

import plad.sampling.sample as sample_module
from plad.errors import PolicyError
from plad.sampling.cache import SlotCache, Span, StepPlan
from plad.sampling.draw import Draft, Request, begin, choose
from plad.sampling.sample import sample
from plad.sampling.slots import by_prompt, common_prefix
from plad.scoring.attention import Kernel
from tests.support.tiny_models import tiny_model

EOS = (2, 3)
MODEL = tiny_model(dtype=torch.float64, initializer_range=0.3)


def requests_for(
    prompts: Sequence[tuple[int, ...]], samples: int = 1, temperature: float = 0.7, max_new_tokens: int = 8
) -> list[Request]:
    return [
        Request(f"{i}.{k}", p, max_new_tokens, temperature, 1000 * i + k)
        for i, p in enumerate(prompts)
        for k in range(samples)
    ]


def random_prompts(n: int, lengths: tuple[int, int] = (3, 30), seed: int = 0) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    return [tuple(draw.randrange(6, 300) for _ in range(draw.randint(*lengths))) for _ in range(n)]


def run(model: Any, requests: Sequence[Request], **options: Any) -> dict[str, tuple[int, ...]]:
    answers: dict[str, tuple[int, ...]] = {}

    def finish(request: Request, tokens: tuple[int, ...], seconds: float) -> None:
        assert request.key not in answers, "a request was answered twice"
        assert seconds >= 0
        answers[request.key] = tokens

    sample(model, requests, **{"slots": 3, "eos_ids": EOS, "on_finish": finish, **options})
    assert set(answers) == {r.key for r in requests}
    return answers


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tokens of every forward pass of a Llama, without the check at the start."""
    monkeypatch.setattr(sample_module, "slots_agree", lambda *_: True)
    counted: list[int] = []
    forward = sample_module.SlotSampler.forward

    def counting(self: Any, decoding: list[Any], spans: list[Any]) -> torch.Tensor:
        counted.append(len(decoding) + sum(s.stop - s.start for _, s in spans))
        return forward(self, decoding, spans)

    monkeypatch.setattr(sample_module.SlotSampler, "forward", counting)
    return counted


# -- the choice of a token ------------------------------------------------------------------------------


class Fixed(random.Random):
    """A stream that always draws the same number."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def draft(uniform: float, temperature: float = 1.0) -> Draft:
    return Draft(Request("r", (6,), 8, temperature, 0), Fixed(uniform))


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.74, 1), (0.76, 3), (1 - 2**-53, 3)])
def test_the_draw_picks_the_token_whose_share_of_the_cumulative_distribution_holds_it(
    uniform: float, token: int
) -> None:
    """P = 1/2, 1/4, 0, 1/4: the bounds are 0.5, 0.75, 0.75, 1."""
    logits = torch.tensor([[0.5, 0.25, 0.0, 0.25]]).log()
    assert choose(logits, [draft(uniform)]) == [token]


def test_temperature_divides_the_logits() -> None:
    """P = 4/5, 1/5 at temperature 1 is 16/17, 1/17 at 1/2 (the odds are squared) and 2/3, 1/3 at 2."""
    logits = torch.tensor([[0.8, 0.2]]).log()
    for temperature, bound in ((1.0, 4 / 5), (0.5, 16 / 17), (2.0, 2 / 3)):
        assert choose(logits, [draft(bound - 1e-6, temperature)]) == [0]
        assert choose(logits, [draft(bound + 1e-6, temperature)]) == [1]


def test_greedy_and_sampled_drafts_go_together() -> None:
    logits = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]).log()
    assert choose(logits, [draft(0.0, 0.0), draft(0.0, 1.0), draft(0.99, 1.0)]) == [1, 0, 1]


def test_a_token_of_probability_zero_is_never_chosen() -> None:
    logits = torch.full((1, 5), float("-inf"))
    logits[0, 2] = 0.0
    assert {choose(logits, [draft(u)])[0] for u in (0.0, 0.5, 1 - 2**-53)} == {2}


def test_sampled_frequencies_are_the_probabilities() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    logits = probabilities.log().expand(4000, -1)
    counts = Counter(choose(logits, [begin(Request("r", (6,), 1, 1.0, seed)) for seed in range(4000)]))
    for token, p in enumerate(probabilities.tolist()):
        assert abs(counts[token] / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logits_that_are_not_finite_are_an_error(bad: float, temperature: float) -> None:
    with pytest.raises(PolicyError, match="not finite"):
        choose(torch.tensor([[0.0, bad, 0.0]]), [draft(0.5, temperature)])


def test_a_stream_belongs_to_its_seed() -> None:
    def draws(seed: int) -> list[float]:
        stream = begin(Request("r", (6,), 1, 1.0, seed)).stream
        return [stream.random() for _ in range(4)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)


# -- order and grouping ---------------------------------------------------------------------------------


def test_prompts_come_longest_first_within_a_window_and_equal_ones_together() -> None:
    prompts = [(1,), (1, 2, 3), (1, 2), (1,), (9, 9, 9, 9)]
    groups = list(by_prompt(requests_for(prompts), window=4))
    assert [(p, [r.key for r in same]) for p, same in groups] == [
        ((1, 2, 3), ["1.0"]),
        ((1, 2), ["2.0"]),
        ((1,), ["0.0", "3.0"]),
        ((9, 9, 9, 9), ["4.0"]),
    ]


def test_samples_of_a_prompt_stay_together_at_the_end_of_a_window() -> None:
    groups = list(by_prompt(requests_for([(1,), (2,), (3,)], samples=5), window=2))
    assert [len(same) for _, same in groups] == [5, 5, 5]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix_is_the_longest(a: list[int], b: list[int]) -> None:
    n = common_prefix(tuple(a), tuple(b))
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


def test_requests_are_read_as_they_are_needed() -> None:
    read = 0

    def stream() -> Iterator[Request]:
        nonlocal read
        for request in requests_for(random_prompts(1500, (1, 2))):
            read += 1
            yield request

    class StopReadingError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StopReadingError

    with pytest.raises(StopReadingError):
        sample(tiny_model(), stream(), slots=2, eos_ids=EOS, on_finish=stop)
    assert read <= 600


# -- what is computed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 3, 16])
def test_samples_of_a_prompt_compute_it_once(rows: list[int], slots: int) -> None:
    prompts = random_prompts(5)
    answers = run(tiny_model(), requests_for(prompts, samples=4), slots=slots)
    # The last token of an answer is never put in.
    assert sum(rows) == sum(map(len, prompts)) + sum(len(a) - 1 for a in answers.values())


def test_an_instruction_shared_by_all_prompts_is_computed_once(rows: list[int]) -> None:
    instruction = tuple(range(10, 50))
    prompts = [instruction + own for own in [(100, 101), (102,), (103, 104, 105), (106,)]]
    answers = run(tiny_model(), requests_for(prompts), slots=2, prefill_tokens=64)
    own = 40 + (2 + 1 + 3 + 1) + sum(len(a) - 1 for a in answers.values())
    assert sum(rows) - own <= 40  # the second prompt may begin beside the first


def test_a_forward_pass_is_bounded_by_the_budget_and_the_slots(rows: list[int]) -> None:
    run(tiny_model(), requests_for(random_prompts(6, (40, 60))), slots=3, prefill_tokens=16)
    assert max(rows) <= 16 + 3


def test_the_cache_is_bounded_by_slots_and_the_longest_request(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[SlotCache] = []

    class Kept(SlotCache):
        def __init__(self, slots: int) -> None:
            super().__init__(slots)
            caches.append(self)

    monkeypatch.setattr("plad.sampling.slots.SlotCache", Kept)
    prompts = random_prompts(9, (3, 20))
    run(tiny_model(), requests_for(prompts, max_new_tokens=5), slots=2)
    cache = caches[-1]
    keys, values = cache.layer(0, torch.empty(0), torch.empty(0))
    assert keys.shape == values.shape == (2, 2, max(map(len, prompts)) + 5, 8)
    assert cache.layers == {0, 1}


def test_a_cache_that_grows_keeps_what_it_holds() -> None:
    cache = SlotCache(2)
    cache.reserve(3)
    key, value = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 5)
    for stored, new in zip(cache.layer(0, key, value), (key, value), strict=True):
        stored[1] = new[0]
    cache.reserve(7)
    cache.reserve(5)
    cache.copy(1, 0, 2)
    keys, values = cache.layer(0, key, value)
    assert keys.shape == (2, 2, 7, 4)
    assert values.shape == (2, 2, 7, 5)
    assert torch.equal(keys[1, :, :3], key[0])
    assert torch.equal(values[0, :, :2], value[0, :, :2])
    assert not keys[0, :, 2:].any()


# -- how an answer ends ---------------------------------------------------------------------------------


def test_every_end_token_ends_an_answer_and_is_kept() -> None:
    model = tiny_model()
    requests = requests_for(random_prompts(20), samples=2, temperature=1.0, max_new_tokens=40)
    ends = tuple(range(2, 40))
    answers = run(model, requests, eos_ids=ends)
    assert len({a[-1] for a in answers.values()} & set(ends)) > 5
    for answer in answers.values():
        assert not set(answer[:-1]) & set(ends)
        assert answer[-1] in ends or len(answer) == 40


@pytest.mark.parametrize("family", ["llama", "gpt_neo"])
def test_one_token_is_a_whole_answer(family: str) -> None:
    answers = run(tiny_model(family), requests_for(random_prompts(4), samples=3, max_new_tokens=1))
    assert {len(a) for a in answers.values()} == {1}


def test_nothing_asked_is_nothing_done() -> None:
    assert run(tiny_model(), []) == {}


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.0: the prompt has no tokens"):
        run(tiny_model(), requests_for([()]))


# -- the model is left as it came -----------------------------------------------------------------------


def test_mode_and_attention_are_restored_also_after_an_error() -> None:
    model = tiny_model().train()
    model.model.layers[0].eval()
    before = model.config._attn_implementation
    modes = [m.training for m in model.modules()]

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    for finish in (lambda *_: None, fail):
        try:
            sample(model, requests_for(random_prompts(3)), slots=2, eos_ids=EOS, on_finish=finish)
        except KeyboardInterrupt:
            assert finish is fail
        assert [m.training for m in model.modules()] == modes
        assert model.config._attn_implementation == before
    assert torch.is_inference_mode_enabled() is False


def test_dropout_is_off_while_sampling() -> None:
    model = tiny_model("gpt2", resid_pdrop=0.5).train()
    requests = requests_for(random_prompts(4))
    assert run(model, requests) == run(model.eval(), requests)


def test_an_adapter_takes_part() -> None:
    base = tiny_model(initializer_range=0.3)
    requests = requests_for(random_prompts(6), temperature=0.0)
    plain = run(base, requests)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear"))
    adapted = run(model, requests)
    assert adapted != plain
    merged = model.merge_and_unload()
    assert run(merged, requests) == adapted


# -- models that don't fit slots ------------------------------------------------------------------------


def hybrid_model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.3,
    )
    return Lfm2ForCausalLM(config).eval()


def test_a_layer_with_a_state_of_its_own_is_noticed_and_sampled_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = hybrid_model()
    prompts = random_prompts(3, (5, 12))
    with caplog.at_level(logging.WARNING):
        answers = run(model, requests_for(prompts, temperature=0.0), eos_ids=())
    assert "one by one" in caplog.text
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        assert answers[f"{i}.0"] == tuple(whole[0, len(prompt) :].tolist())


def test_a_layer_without_a_number_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    requests = requests_for(random_prompts(3))
    expected = run(model, requests)
    model.config.use_cache = True
    attention = type(model.model.layers[0].self_attn)
    original = attention.forward

    def unnumbered(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.config._attn_implementation != "plad":
            return original(self, *args, **kwargs)
        raise AttributeError("no attribute 'layer_idx'")

    attention.forward = unnumbered
    try:
        with caplog.at_level(logging.WARNING):
            assert run(model, requests) == expected
    finally:
        attention.forward = original
    assert "layer_idx" in caplog.text


def test_one_by_one_computes_a_prompt_once_for_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt_neo")
    tokens: list[int] = []
    forward = type(model).forward

    def counting(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        tokens.append(input_ids.numel())
        return forward(self, input_ids, **kwargs)

    monkeypatch.setattr(type(model), "forward", counting)
    prompts = random_prompts(3)
    answers = run(model, requests_for(prompts, samples=3))
    assert sum(tokens) == sum(map(len, prompts)) + sum(len(a) - 1 for a in answers.values())


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 4),
)
def test_any_schedule_gives_the_same_answers(
    lengths: list[int], samples: int, slots: int, prefill_tokens: int, kinds: int
) -> None:
    """Few token kinds, so that prompts begin alike and repeat; some prompts are in the data twice."""
    draw = random.Random(str(lengths))
    prompts = [tuple(6 + draw.randrange(kinds) for _ in range(n)) for n in lengths]
    requests = requests_for(prompts, samples, temperature=1.0)
    alone = {k: v for r in requests for k, v in run(MODEL, [r], slots=1, eos_ids=range(2, 60)).items()}
    assert run(MODEL, requests, slots=slots, prefill_tokens=prefill_tokens, eos_ids=range(2, 60)) == alone


# -- attention of a step --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("softcap", [None, 0.8])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_step_attends_as_each_sequence_alone(window: int | None, softcap: float | None, kv_heads: int) -> None:
    """Three sequences in slots 0, 2 and 3 of 5: two decode while the third's prompt comes in two parts."""
    kernel = Kernel(scaling=0.6, dropout=0.0, sliding_window=window, softcap=softcap)
    make = torch.Generator().manual_seed(0)
    lengths = {0: 9, 2: 6, 3: 7}

    def draw(heads: int, dim: int) -> dict[int, torch.Tensor]:
        return {s: torch.randn(1, heads, n, dim, dtype=torch.float64, generator=make) for s, n in lengths.items()}

    query, key, value = draw(4, 8), draw(kv_heads, 8), draw(kv_heads, 6)
    cache = SlotCache(5)
    cache.reserve(10)
    done = dict.fromkeys(lengths, 0)
    outputs: dict[int, list[torch.Tensor]] = {s: [] for s in lengths}

    def step(decoding: list[int], parts: dict[int, int]) -> None:
        sizes = [*((s, 1) for s in decoding), *parts.items()]
        row = [torch.cat([t[s][:, :, done[s] : done[s] + n] for s, n in sizes], 2) for t in (query, key, value)]
        spans, start = [], len(decoding)
        for s, n in parts.items():
            spans.append(Span(s, start, start + n, done[s], done[s] + n))
            start += n
        at = [0] * (1 + max(decoding, default=-1))
        for s in decoding:
            at[s] = done[s]
        plan = StepPlan(
            cache,
            decoding=torch.tensor(decoding, dtype=torch.long),
            at=torch.tensor([done[s] for s in decoding], dtype=torch.long),
            lengths=torch.tensor(at, dtype=torch.long),
            longest=1 + max(at, default=0),
            spans=tuple(spans),
        )
        out = plan.attend(0, row[0], row[1], row[2], kernel)
        for (s, n), piece in zip(sizes, out.split([n for _, n in sizes], 2), strict=True):
            outputs[s].append(piece)
            done[s] += n

    step([], {0: 7, 2: 4})
    step([0, 2], {3: 3})
    step([0, 2], {3: 4})
    for s in lengths:
        expected = kernel.causal(query[s], key[s], value[s])
        assert torch.allclose(torch.cat(outputs[s], 2), expected, rtol=0, atol=1e-6 if softcap else 1e-12)


# -- no slot stays empty while there is work for it -----------------------------------------------------


def test_free_slots_take_over_samples_that_wait_elsewhere(rows: list[int]) -> None:
    """One prompt, 6 samples of 8 tokens: the prompt, then 7 passes with a token of each sample."""
    run(tiny_model(), requests_for(random_prompts(1, (5, 5)), samples=6), slots=6, eos_ids=())
    assert rows == [5, *[6] * 7]


def test_the_last_answers_move_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "slots_agree", lambda *_: True)
    places: list[list[int]] = []
    forward = sample_module.SlotSampler.forward

    def watching(self: Any, decoding: list[Any], spans: list[Any]) -> torch.Tensor:
        places.append([slot.index for slot, _ in decoding])
        return forward(self, decoding, spans)

    monkeypatch.setattr(sample_module.SlotSampler, "forward", watching)
    requests = [Request(str(i), p, 2 + 2 * i, 1.0, i) for i, p in enumerate(random_prompts(5, (9, 9)))]
    answers = run(tiny_model(), requests, slots=5, eos_ids=())
    assert [len(answers[str(i)]) for i in range(5)] == [2, 4, 6, 8, 10]
    assert all(at == list(range(len(at))) for at in places)
    assert len(places) == 1 + 9
