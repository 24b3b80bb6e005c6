"""Replies that no honest server sends: each is one failed row with its reason, and the run and its ledger go on."""

from pathlib import Path
from typing import Any

import pytest

from plad.answers.fill import fill
from plad.answers.ledger import Ledger
from plad.answers.paid import purchases, spent
from plad.answers.question import AnswerSet, Sampling
from plad.answers.reply import MOST_TOKENS
from plad.config.models import PromptSection
from plad.records import Example
from plad.remote.batch import read_row
from plad.remote.openai import OpenAI, OpenAIEngine, probe
from plad.remote.response import Meaning, read_response
from tests.support.servers.scripted import Call, FakeClock, Response, answer, as_json, serve

EXAMPLES = [Example(f"id {i}", f"question {i}") for i in range(6)]
HOSTILE = "question 3"
DEEP = 100_000
WHOLE = answer("an answer").body.decode()


def counted(prompt: Any, completion: Any = 2) -> bytes:
    return answer("x", usage={"prompt_tokens": prompt, "completion_tokens": completion}).body


def nested(depth: int, at: str = "extra") -> bytes:
    """An answer that is whole but for one field."""
    return WHOLE.replace('"id": "x"', f'"{at}": ' + "[" * depth + "]" * depth).encode()


ODD: dict[str, tuple[bytes, str]] = {
    "nested for ever": (b"[" * DEEP + b"]" * DEEP, "nested too deeply"),
    "nested objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "nested too deeply"),
    "nested beside an answer": (nested(DEEP), "nested too deeply"),
    "a key twice": (WHOLE.replace('"id"', '"model": "other", "id"').encode(), "a key twice"),
    "a count of 5,000 digits": (counted(7).replace(b": 7,", b": " + b"9" * 5000 + b","), "thousands of digits"),
    "10**30": (counted(10**30), "prompt_tokens"),
    "2**63": (counted(2**63), "prompt_tokens"),
    "2**63 - 1": (counted(1, 2**63 - 1), "completion_tokens"),
    "2**62": (counted(1, 2**62), "completion_tokens"),
    "negative": (counted(-1), "'-1' as prompt_tokens"),
    "a float": (counted(1.5), "'1.5' as prompt_tokens"),
    "infinite": (counted(float("inf")), "'inf' as prompt_tokens"),
    "true": (counted(True), "'True' as prompt_tokens"),
    "text": (counted("5"), "'5' as prompt_tokens"),
    "a list": (counted([1]), "prompt_tokens"),
}


def run(body: bytes, path: Path, **settings: Any) -> tuple[dict[str, int], int]:
    def script(call: Call) -> Response:
        return Response(body) if call.prompt == HOSTILE else answer("an answer")

    with serve(script) as server, Ledger(path, run="r") as ledger:
        section = OpenAIEngine(base_url=server.url, concurrency=2, **settings)
        engine = OpenAI(section, "big", PromptSection(), clock=FakeClock())
        counts = fill(engine, EXAMPLES, AnswerSet("teacher", "w", Sampling(0.7, 8), 0), ledger)
        return counts, len(server.calls)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_reply_is_one_failed_row_with_its_reason(name: str, tmp_path: Path) -> None:
    body, reason = ODD[name]
    path = tmp_path / "generations.sqlite"
    counts, calls = run(body, path, price={"input": 1.0, "output": 2.0})
    assert counts == {"ok": 5, "failed": 1}
    assert calls == 6, "what was whole may have been billed: it isn't asked for again in this run"
    with Ledger(path, readonly=True) as ledger:
        (said,) = ledger.messages("teacher")
        assert reason in said
        assert len(said) < 200
        assert sum(row["lost"] for row in ledger.summary()) == 1
    assert run(answer("an answer").body, path)[0] == {"ok": 6}, "the next run asks again"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "none", [], 0])
def test_counts_that_are_not_given_are_estimated_as_before(usage: Any, tmp_path: Path) -> None:
    assert run(answer("x", usage=usage).body, tmp_path / "generations.sqlite")[0] == {"ok": 6}


@pytest.mark.parametrize("field", ["content", "model", "refusal", "error"])
def test_text_that_cant_be_stored_is_stored_without_its_lone_surrogates(field: str, tmp_path: Path) -> None:
    bad = "half \ud83d of it"
    body = {
        "content": lambda: answer(bad),
        "model": lambda: answer(model=bad),
        "refusal": lambda: answer(None, message={"refusal": bad}),
        "error": lambda: as_json({"error": {"message": bad, "code": 400}}),
    }[field]().body
    counts, _ = run(body, tmp_path / "generations.sqlite")
    assert sum(counts.values()) == 6
    with Ledger(tmp_path / "generations.sqlite", readonly=True) as ledger:
        assert "half ? of it" in str(list(ledger.table()))


@pytest.mark.parametrize("depth", range(900, 1000, 7))
@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_nesting_that_barely_parses_breaks_nothing_later(depth: int, status: int) -> None:
    """What the parser lets through may still be too deep for what shows it."""
    deep = "[" * depth + "]" * depth
    for value in (
        '{"error": {"message": %s}}',
        '{"error": %s}',
        '{"choices": [{"finish_reason": "error", "error": %s}]}',
    ):
        assert isinstance(read_response(status, {}, (value % deep).encode()).meaning, Meaning)


def test_a_hostile_error_keeps_its_meaning() -> None:
    deep = b"[" * DEEP
    assert read_response(429, {"retry-after": "7"}, deep).wait == 7
    assert read_response(401, {}, b'{"error": 1, "error": 2}').meaning is Meaning.STOP
    assert read_response(503, {}, deep).meaning is Meaning.PASSING


@pytest.mark.parametrize("name", ODD)
def test_a_row_of_a_batch_means_the_same(name: str) -> None:
    body, reason = ODD[name]
    attempt = read_row({"response": {"status_code": 200, "body": body.decode()}})
    assert attempt.meaning is Meaning.FINAL
    assert attempt.reply is not None
    assert (attempt.reply.outcome, attempt.reply.lost) == ("failed", 1)
    assert reason in str(attempt.reply.message)


@pytest.mark.parametrize(
    "listing", [b"[" * DEEP, b'{"data": [{"id": "big", "n_ctx": true}]}', b'{"data": 1}', b"9" * 5000]
)
def test_a_hostile_list_of_models_tells_no_context(listing: bytes) -> None:
    with serve(lambda call: Response(listing) if call.method == "GET" else answer()) as server:
        engine = OpenAI(OpenAIEngine(base_url=server.url), "big", PromptSection())
        asked = AnswerSet("teacher", "w", Sampling(0.7, 8), 0)
        (question,) = asked.questions(EXAMPLES[0], engine.encode(EXAMPLES[0]), {})
        assert probe(engine, question, asked.sampling)[1] is None


def test_a_ledger_with_counts_beyond_belief_is_read(tmp_path: Path) -> None:
    """One that an earlier version recorded."""
    path = tmp_path / "generations.sqlite"
    run(answer().body, path)
    with Ledger(path, run="r") as ledger:
        ledger.write([("UPDATE generations SET prompt_tokens = ?, completion_tokens = ?", (2**63 - 1,) * 2)])
        assert [row["prompt_tokens"] for row in ledger.summary()] == [6 * MOST_TOKENS]
        assert spent(ledger, "r")[1] == 12 * MOST_TOKENS
        assert purchases(ledger, "r")[0].completion_tokens % MOST_TOKENS == 0
