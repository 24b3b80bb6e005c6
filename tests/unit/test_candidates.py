"""Texts to a prompt and their likelihoods under a policy."""

import numpy as np
import pytest
import torch

from plad.evaluate.likelihoods import ScoredText, gather, judged, likelihoods
from plad.judges.reference import ReferenceScorer
from plad.records import Example, Generation, Outcome
from tests.support.tiny_models import tiny_policy

EXAMPLES = [Example("a", "Say something.", ("red sun", "blue sky")), Example("b", "And more.", ("blue",))]


def said(example: str, text: str, outcome: Outcome = Outcome.OK, tokens: tuple[int, ...] = (7, 2)) -> Generation:
    return Generation(example, 0, text, tokens, outcome, 3)


def test_only_different_finished_texts_meet() -> None:
    own = {"a": [said("a", "red"), said("a", "cut", Outcome.TRUNCATED)], "b": [said("b", "blue")]}
    others = {"a": [said("a", "red"), said("a", "sky", tokens=(9, 9))], "b": [said("b", "", Outcome.EMPTY)]}
    texts, left_out = gather(EXAMPLES, own, others)
    assert texts == {"a": [ScoredText("red", (7, 2)), ScoredText("sky", None)]}
    assert left_out == {"truncated": 1, "same_text": 1, "empty": 1, "alone": 1}


@pytest.mark.parametrize("max_tokens", [None, 4096])
def test_likelihoods_are_the_plain_forwards_means(max_tokens: int | None) -> None:
    policy = tiny_policy("llama")
    texts = {
        "a": [ScoredText("one", (30, 40, 50, 2)), ScoredText("two words")],
        "b": [ScoredText("x"), ScoredText("y", (31, 2))],
    }
    found = likelihoods(policy, EXAMPLES, texts, max_tokens=max_tokens)
    for e in EXAMPLES:
        prompt = policy.prompt.encode_prompt(e.prompt)
        for text, mean in zip(texts[e.id], found[e.id], strict=True):
            ids = list(text.token_ids or policy.prompt.encode_completion(text.text))
            with torch.no_grad():
                logits = policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).mean()
            assert mean == pytest.approx(float(expected), abs=1e-5)


def test_prompts_beyond_the_context_are_missing() -> None:
    policy = tiny_policy("llama")
    texts = {"a": [ScoredText("one"), ScoredText("two", (30,) * 400)], "b": [ScoredText("x"), ScoredText("y")]}
    assert list(likelihoods(policy, EXAMPLES, texts, max_tokens=None)) == ["b"]
    assert likelihoods(policy, EXAMPLES[:1], texts, max_tokens=None) == {}


def test_texts_that_cant_be_judged_are_left_out() -> None:
    """The reference judge sees all references: "red sun" is found in a; b, scored by one model only, is out."""
    texts = {
        "a": [ScoredText("red sun"), ScoredText("green"), ScoredText("blue")],
        "b": [ScoredText("x"), ScoredText("y")],
    }
    before = {"a": np.array([-1.0, -2.0, -3.0]), "b": np.array([-1.0, -2.0])}
    after = {"a": np.array([-3.0, -2.0, -1.0])}
    found = judged(ReferenceScorer(), EXAMPLES, texts, {"student_sft": before, "student": after})
    assert [len(v) for v in found.values()] == [1, 1]
    assert found["student"][0].quality == pytest.approx([1.0, 0.0, 2 / 3])
    assert found["student"][0].likelihood.tolist() == [-3.0, -2.0, -1.0]
    alone = [Example("a", "Say something.")]
    assert len(judged(ReferenceScorer(), alone, texts, {"student": after})["student"][0].quality) == 0
    assert judged(ReferenceScorer(), [], {}, {"student": {}}) == {"student": []}
