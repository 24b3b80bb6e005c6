"""The same answers by another way: transformers' own loop, one row at a time, another order, a second run."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plad.answers.fill import answer, recorded
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling, request_seed
from plad.config.models import PromptSection
from plad.errors import PolicyError, RunDirError
from plad.policy.load import Policy
from plad.progress import Progress
from plad.records import Example, Generation, Outcome
from plad.sampling.draw import Request
from plad.sampling.sample import sample, slots_agree
from plad.sampling.transformers import Transformers
from tests.support.tiny_models import CHATML, ENCODER_DECODERS, FAMILIES, tiny_model, tiny_policy, train_tokenizer

SLOT_FAMILIES = tuple(f for f in FAMILIES if f not in ("gpt_neo", "bloom"))
WIDE: dict[str, dict[str, Any]] = {
    **{family: {"initializer_range": 0.4} for family in FAMILIES},
    **{family: {} for family in ENCODER_DECODERS},
    "opt": {"init_std": 0.4},
    "bart": {"init_std": 0.4, "tie_word_embeddings": False},
}  # weights so large that attention matters
NEW = 10


def random_prompts(n: int = 7) -> list[tuple[int, ...]]:
    draw = random.Random(1)
    return [tuple(draw.randrange(6, 300) for _ in range(draw.randint(1, 40))) for _ in range(n)]


def run(model: Any, requests: Sequence[Request], **options: Any) -> dict[str, tuple[int, ...]]:
    answers: dict[str, tuple[int, ...]] = {}
    sample(model, requests, eos_ids=EOS, on_finish=lambda r, tokens, _: answers.update({r.key: tokens}), **options)
    return answers


EOS = tuple(range(2, 20))


EVERY = (*FAMILIES, *ENCODER_DECODERS)


@pytest.mark.parametrize("family", EVERY)
def test_greedy_answers_are_those_of_transformers_generate(family: str) -> None:
    """Windows of 8 tokens, prompts of up to 40, three samples of which all are the same text."""
    model: Any = tiny_model(family, dtype=torch.float64, layers=3, **WIDE[family])
    prompts = random_prompts()
    requests = [Request(f"{i}.{k}", p, NEW, 0.0, k) for i, p in enumerate(prompts) for k in range(3)]
    ours = run(model, requests, slots=4, prefill_tokens=16)
    started = {"bart": 2}.get(family, 1) if family in ENCODER_DECODERS else 0  # tokens of the decoder's own
    new = NEW + max(started - 1, 0)
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, eos_token_id=list(EOS)
        )
        answer_ = tuple(whole[0, started or len(prompt) :].tolist())
        assert {ours[f"{i}.{k}"] for k in range(3)} == {answer_}
    assert len(set(ours.values())) > 3


@pytest.mark.parametrize("family", EVERY)
def test_sampled_answers_are_those_of_one_row_at_a_time(family: str) -> None:
    model = tiny_model(family, dtype=torch.float64, layers=3, **WIDE[family])
    requests = [Request(f"{i}.{k}", p, NEW, 0.7, 10 * i + k) for i, p in enumerate(random_prompts()) for k in range(2)]
    alone: dict[str, tuple[int, ...]] = {}
    for request in requests:
        alone |= run(model, [request], slots=1)
    assert run(model, requests, slots=3, prefill_tokens=16) == alone
    assert run(model, requests[::-1], slots=20) == alone
    assert len({a[:2] for a in alone.values()}) > 5


def test_a_prompt_is_encoded_once_for_all_its_answers_however_few_the_slots() -> None:
    model: Any = tiny_model("t5", dtype=torch.float64)
    prompts = random_prompts(3)
    requests = [Request(f"{i}.{k}", p, NEW, 0.7, 10 * i + k) for i, p in enumerate(prompts) for k in range(5)]
    read: list[int] = []
    model.encoder.embed_tokens.register_forward_hook(lambda _m, inputs, _o: read.append(inputs[0].shape[0]))
    many = run(model, requests, slots=100)
    assert read == [3]
    few = run(model, requests, slots=2)
    assert read == [3, 1, 1, 1]
    assert few == many


@pytest.mark.parametrize("family", SLOT_FAMILIES)
def test_these_families_go_through_slots(family: str) -> None:
    with torch.inference_mode():
        assert slots_agree(tiny_model(family, **WIDE[family]), random_prompts()[0])


@pytest.mark.parametrize("family", ["gpt_neo", "bloom"])
def test_these_families_go_one_by_one(family: str) -> None:
    with torch.inference_mode():
        assert not slots_agree(tiny_model(family), random_prompts()[0])


# -- the engine -----------------------------------------------------------------------------------------

SAMPLING = Sampling(temperature=0.9, max_new_tokens=6, samples=2)
ANSWERS = AnswerSet("teacher", "w", SAMPLING, seed=0)
POLICY = tiny_policy(dtype=torch.float64, initializer_range=0.3)
EXAMPLES = [Example(f"id {i}", f"question number {i} " * (i % 4 + 1)) for i in range(12)]
Answers = dict[tuple[str, int], Generation]


def by_id(generations: Sequence[Generation]) -> Answers:
    return {(g.example_id, g.sample): g for g in generations}


def ask(
    ledger: Ledger, examples: Sequence[Example], policy: Policy = POLICY, **changes: Any
) -> tuple[list[Generation], Progress]:
    bar = Progress("teacher", 0, "answers")
    slots = changes.pop("slots", 3)
    answers = replace(ANSWERS, **changes)
    return answer(Transformers(policy, answers.weights, slots), examples, answers, ledger, bar), bar


@pytest.fixture(scope="module")
def undisturbed() -> Answers:
    with Ledger(":memory:") as ledger:
        return by_id(ask(ledger, EXAMPLES)[0])


def test_answers_come_in_order_of_examples_and_samples() -> None:
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, EXAMPLES[::-1])
    assert [(g.example_id, g.sample) for g in answers] == [(e.id, k) for e in EXAMPLES[::-1] for k in range(2)]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.permutations(range(12)).flatmap(lambda p: st.integers(0, 12).map(lambda n: p[:n])), max_size=3))
def test_grown_shrunk_or_reordered_input_samples_only_what_is_new(
    undisturbed: Answers, inputs: list[list[int]]
) -> None:
    seen: set[str] = set()
    with Ledger(":memory:") as ledger:
        for rows in inputs:
            examples = [EXAMPLES[i] for i in rows]
            answers, bar = ask(ledger, examples)
            new = {e.id for e in examples} - seen
            seen |= new
            assert bar.done - bar.before == 2 * len(new)
            assert by_id(answers) == {key: undisturbed[key] for key in by_id(answers)}
            assert len(answers) == 2 * len(examples)


@pytest.mark.parametrize("slots", [1, 2, 50])
def test_the_number_of_slots_changes_nothing_and_is_in_no_key(undisturbed: Answers, slots: int) -> None:
    with Ledger(":memory:") as ledger:
        assert by_id(ask(ledger, EXAMPLES, slots=slots)[0]) == undisturbed
        again, bar = ask(ledger, EXAMPLES, slots=7)
    assert bar.done == bar.before == 24
    assert by_id(again) == undisturbed


def test_samples_of_a_prompt_differ_and_so_do_equal_prompts_of_other_ids() -> None:
    same = [Example(f"id {i}", "the very same prompt") for i in range(8)]
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, same)
    assert len({g.token_ids for g in answers}) == 16


def test_the_seed_is_of_run_example_and_sample() -> None:
    seeds = {request_seed(run_, id_, k) for run_ in (0, 1) for id_ in ("a", "b", "a0") for k in range(3)}
    assert len(seeds) == 18
    assert request_seed(0, "a", 0) == request_seed(0, "a", 0)


def other_format() -> Policy:
    return tiny_policy(dtype=torch.float64, initializer_range=0.3, prompt=PromptSection(template="Q: {prompt} A:"))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "others"},
        {"seed": 1},
        {"sampling": replace(SAMPLING, temperature=0.8)},
        {"sampling": replace(SAMPLING, max_new_tokens=7)},
        {"policy": other_format()},
        {"policy": replace(POLICY, prompt=replace(POLICY.prompt, eos_ids=(*POLICY.prompt.eos_ids, 9)))},
        {"policy": replace(POLICY, context=100)},
        {"policy": replace(POLICY, eos_ids=(*POLICY.eos_ids, 9))},
        {"policy": replace(POLICY, dtype=torch.float32)},
        {"examples": [replace(e, prompt=f"{e.prompt}!") for e in EXAMPLES]},
        {"examples": [replace(e, id=f"{e.id}!") for e in EXAMPLES]},
    ],
    ids=lambda c: next(iter(c)) if isinstance(c, dict) else None,
)
def test_whatever_shapes_an_answer_is_in_its_key(change: dict[str, Any]) -> None:
    with Ledger(":memory:") as ledger:
        ask(ledger, EXAMPLES)
        _, bar = ask(ledger, **{"examples": EXAMPLES, **change})
    assert bar.before == 0
    assert bar.done == 24


def test_another_number_of_samples_reuses_those_that_are_there(undisturbed: Answers) -> None:
    with Ledger(":memory:") as ledger:
        ask(ledger, EXAMPLES)
        answers, bar = ask(ledger, EXAMPLES, sampling=replace(SAMPLING, samples=3))
        assert bar.before == 24
        assert bar.done == 36
        fewer, _ = ask(ledger, EXAMPLES, sampling=replace(SAMPLING, samples=1))
    assert {k: g for k, g in by_id(answers).items() if k[1] < 2} == undisturbed
    assert by_id(fewer) == {k: g for k, g in undisturbed.items() if k[1] == 0}


def test_recorded_answers_come_without_a_model() -> None:
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, EXAMPLES)
        found = recorded(EXAMPLES[:5], ANSWERS, ledger)
        assert [g for e in EXAMPLES[:5] for g in found[e.id]] == answers[:10]
        for change in (
            {"system": "student"},
            {"weights": "v"},
            {"seed": 1},
            {"sampling": replace(SAMPLING, samples=3)},
        ):
            with pytest.raises(RunDirError, match="missing"):
                recorded(EXAMPLES, replace(ANSWERS, **change), ledger)


def test_a_setting_changed_and_put_back_finds_the_first_answers_again(undisturbed: Answers) -> None:
    with Ledger(":memory:") as ledger:
        for policy in (POLICY, other_format(), POLICY):
            answers, _ = ask(ledger, EXAMPLES, policy=policy)
            found = recorded(EXAMPLES, ANSWERS, ledger)
            assert [g for e in EXAMPLES for g in found[e.id]] == answers
        assert by_id(answers) == undisturbed


def test_two_systems_of_the_same_weights_share_answers() -> None:
    with Ledger(":memory:") as ledger:
        first, _ = ask(ledger, EXAMPLES)
        second, bar = ask(ledger, EXAMPLES, system="student")
        assert second == first
        assert bar.before == 24
        student = replace(ANSWERS, system="student")
        assert recorded(EXAMPLES, student, ledger) == recorded(EXAMPLES, ANSWERS, ledger)


# -- outcomes -------------------------------------------------------------------------------------------


def test_a_prompt_that_leaves_no_room_is_recorded_and_the_others_go_on() -> None:
    """Prompt + max_new_tokens of context - 1, context and context + 1: only the last is too long."""
    tokenizer = train_tokenizer(["ab"], vocab_size=262)
    policy = replace(tiny_policy(tokenizer=tokenizer), context=40)
    examples = [Example(f"{n}", "x" * n) for n in (33, 34, 35, 3)]
    assert [len(policy.prompt.encode_prompt(e.prompt)) for e in examples] == [33, 34, 35, 3]
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, examples, policy, sampling=replace(SAMPLING, samples=1))
        again, bar = ask(ledger, examples, policy, sampling=replace(SAMPLING, samples=1))
    assert [g.outcome is Outcome.TOO_LONG for g in answers] == [False, False, True, False]
    assert answers[2] == Generation("35", 0, "", (), Outcome.TOO_LONG, 35)
    assert answers[0].token_ids
    assert again == answers
    assert bar.before == 4


class Scripted(torch.nn.Module):
    """Takes the place of a head: always the same token."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], 300)
        logits[..., self.token] = 100.0
        return logits


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("</s>", Outcome.EMPTY), (" ", Outcome.EMPTY), ("x", Outcome.TRUNCATED), ("<pad>", Outcome.EMPTY)],
)
def test_outcomes_follow_from_how_the_answer_ended(text: str, outcome: Outcome) -> None:
    policy = tiny_policy(vocab_size=300)
    token = policy.tokenizer.convert_tokens_to_ids("Ġ" if text == " " else text)
    assert isinstance(token, int)
    policy.model.lm_head = Scripted(token)
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, EXAMPLES[:2], policy)
    assert {g.outcome for g in answers} == {outcome}
    assert {len(g.token_ids) for g in answers} == {1 if text == "</s>" else 6}
    assert {g.text for g in answers} == {"x" * 6 if text == "x" else ""}


def test_an_answer_that_ends_by_itself_is_ok_and_keeps_its_end() -> None:
    sampling = Sampling(temperature=1.0, max_new_tokens=60, samples=4)
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, EXAMPLES, replace(POLICY, eos_ids=tuple(range(100, 130))), sampling=sampling)
    ok = [g for g in answers if g.outcome is Outcome.OK]
    assert len(ok) > 10
    assert all(g.token_ids[-1] in range(100, 130) for g in ok)
    assert all(len(g.token_ids) == 60 for g in answers if g.outcome is Outcome.TRUNCATED)


def test_a_conversation_is_answered() -> None:
    tokenizer = train_tokenizer(chat_template=CHATML)
    policy = tiny_policy(tokenizer=tokenizer)
    talk = Example("talk", ({"role": "user", "content": "hello"},))
    with Ledger(":memory:") as ledger:
        answers, _ = ask(ledger, [talk], policy)
        assert recorded([talk], ANSWERS, ledger) == {"talk": answers}
    assert answers[0].prompt_tokens == len(policy.prompt.encode_prompt(talk.prompt))


def test_an_empty_prompt_names_its_example() -> None:
    policy = tiny_policy(prompt=PromptSection(format="plain"))
    with Ledger(":memory:") as ledger, pytest.raises(PolicyError, match="no tokens") as caught:
        ask(ledger, [Example("the empty one", "")], policy)
    assert "the empty one" in str(caught.value)


def test_progress_counts_answers_and_tokens() -> None:
    with Ledger(":memory:") as ledger:
        answers, bar = ask(ledger, EXAMPLES)
    assert bar.done == 24
    assert bar.extra == {"tokens": sum(len(g.token_ids) for g in answers)}


def test_rows_are_shown_under_their_system(tmp_path: Path) -> None:
    with Ledger(tmp_path / "generations.sqlite") as ledger:
        answers, _ = ask(ledger, EXAMPLES)
    with Ledger(tmp_path / "generations.sqlite", readonly=True) as reader:
        assert sum(reader.counts()["teacher"].values()) == 24
        assert {r.generation for r in reader.rows("teacher")} == set(answers)
