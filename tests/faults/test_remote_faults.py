"""A teacher behind an endpoint, through the ledger: nothing that was paid for is lost or asked for twice."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plad.answers.fill import answer, fill, recorded
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.models import PromptSection
from plad.errors import Interrupted, PolicyError, ProviderError
from plad.progress import Progress
from plad.records import Example, Generation, Outcome
from plad.remote.openai import OpenAI, OpenAIEngine
from tests.support.servers.scripted import Call, FakeClock, Response, error, serve
from tests.support.servers.scripted import answer as reply_with
from tests.support.tiny_models import CHATML, train_tokenizer

EXAMPLES = [Example(f"id {i}", f"question {i}") for i in range(40)]
SAMPLING = Sampling(0.7, 16, samples=2)
TOTAL = 80
MANY = [Example(f"id {i}", f"question {i}") for i in range(160)]  # more than twenty kills get through
ANSWERS = AnswerSet("teacher", "w", SAMPLING, 3)
Key = tuple[str, int]


def engine(url: str, *, prompt: PromptSection | None = None, model: str = "big", **settings: Any) -> OpenAI:
    section = OpenAIEngine(base_url=url, **{"concurrency": 4, "timeout_s": 5.0, **settings})
    return OpenAI(section, model, prompt or PromptSection(), clock=FakeClock())


def honest(call: Call) -> Response:
    """An answer that depends on all that was asked, as a seeded server's would."""
    text = "answer " + hashlib.sha256(call.raw).hexdigest()[:12]
    return reply_with(text, "length" if int(text[-1], 16) < 3 else "stop")


def by_id(generations: Sequence[Generation]) -> dict[Key, Generation]:
    return {(g.example_id, g.sample): g for g in generations}


def asked(call: Call) -> tuple[str, int]:
    return call.prompt, call.body["seed"]


@pytest.fixture(scope="module")
def undisturbed() -> dict[Key, Generation]:
    with serve(honest) as server, Ledger(":memory:") as ledger:
        return by_id(answer(engine(server.url), EXAMPLES, ANSWERS, ledger))


def count(path: Path) -> int:
    with Ledger(path, readonly=True) as ledger:
        return sum(ledger.counts().get("teacher", {}).values())


# -- 1: killed at any moment ----------------------------------------------------------------------------


def child(path: Path, url: str, examples: Sequence[Example]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Ledger(path) as ledger:
            fill(engine(url), examples, ANSWERS, ledger)
        os._exit(0)
    except Interrupted as e:
        os._exit(e.exit_code)


def start(path: Path, url: str, examples: Sequence[Example] = EXAMPLES) -> Any:
    process = multiprocessing.get_context("fork").Process(target=child, args=(path, url, examples))
    process.start()
    return process


def test_killed_twenty_times_at_random_moments_nothing_recorded_is_lost_or_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "generations.sqlite"
    draw = random.Random(11)
    process: Any = None
    goal = [0]

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)

    def script(call: Call) -> Response:
        if call.number == goal[0]:
            threading.Timer(draw.random() * 0.004, kill).start()
        return honest(call)

    with serve(script) as server:
        kept: set[tuple[str, int]] = set()
        kills = 0
        while kills < 20:
            before = len(server.calls)
            goal[0] = before + draw.randint(0, 2)
            process = start(path, server.url, MANY)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            again = Counter(asked(c) for c in server.calls[before:])
            assert not kept & set(again), "a recorded answer was asked for again"
            with Ledger(path, readonly=True) as ledger:
                have = {r.generation.text for r in ledger.rows()}
            kept |= {asked(c) for c in server.calls if "answer " + hashlib.sha256(c.raw).hexdigest()[:12] in have}
        goal[0] = -1
        before = len(server.calls)
        with Ledger(path) as ledger:
            bar = Progress("teacher", 2 * len(MANY), "answers")
            answers = answer(engine(server.url), MANY, ANSWERS, ledger, bar)
        assert not kept & {asked(c) for c in server.calls[before:]}
        assert bar.before == len(kept)
        assert len(server.calls) <= 2 * len(MANY) + 2 * 4 * kills, "at most what was in flight or had just arrived"
    with serve(honest) as server, Ledger(":memory:") as ledger:
        assert by_id(answers) == by_id(answer(engine(server.url), MANY, ANSWERS, ledger))
    assert count(path) == 2 * len(MANY)


# -- 2: stopped by the user -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_what_is_in_flight_is_recorded(
    tmp_path: Path, undisturbed: dict[Key, Generation], number: signal.Signals
) -> None:
    path = tmp_path / "generations.sqlite"
    process: Any = None

    def script(call: Call) -> Response:
        if call.number == 9:
            os.kill(process.pid, number)
        return honest(call)

    with serve(script) as server:
        process = start(path, server.url)
        process.join()
        assert process.exitcode == 130
        recorded_ = count(path)
        assert recorded_ == len(server.calls) < TOTAL
        with Ledger(path) as ledger:
            assert by_id(answer(engine(server.url), EXAMPLES, ANSWERS, ledger)) == undisturbed
        assert len(server.calls) == TOTAL


# -- 5, 22: what a key is made of -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"model": "bigger"},
        {"api": "completions"},
        {"prompt": PromptSection(template="Q: {prompt}")},
        {"prompt": PromptSection(system="be brief")},
        {"body": {"top_p": 0.9}},
        {"max_tokens_field": "max_completion_tokens"},
        {"seed_field": None},
        {"sampling": Sampling(0.8, 16, 2)},
        {"sampling": Sampling(0.7, 17, 2)},
        {"seed": 4},
        {"examples": [Example(e.id, e.prompt + "?") for e in EXAMPLES]},
        {"revision": "2026-11"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_shapes_an_answer_makes_another_key(change: dict[str, Any]) -> None:
    assert calls_after(change) == TOTAL


@pytest.mark.parametrize(
    "change",
    [
        {"concurrency": 9},
        {"rpm": 60_000},
        {"tpm": 10_000_000},
        {"timeout_s": 4.0},
        {"max_attempts": 2},
        {"max_wait_s": 5.0},
        {"price": {"input": 1.0, "output": 2.0}},
        {"api_key_env": "MY_KEY"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_pace_price_and_key_do_not(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    assert calls_after(change) == 0


def calls_after(change: dict[str, Any]) -> int:
    """How many requests a second run sends with one thing changed."""
    change = dict(change)
    answers = replace(ANSWERS, **{k: change.pop(k) for k in ("sampling", "seed") if k in change})
    examples = change.pop("examples", EXAMPLES)
    revision = change.pop("revision", None)
    with serve(honest) as server, Ledger(":memory:") as ledger:
        fill(engine(server.url), EXAMPLES, ANSWERS, ledger)
        assert len(server.calls) == TOTAL
        changed = engine(server.url, **change)
        fill(
            OpenAI(changed.section, changed.model, changed.prompt, revision, clock=FakeClock()),
            examples,
            answers,
            ledger,
        )
        return len(server.calls) - TOTAL


def test_another_endpoint_is_asked_anew() -> None:
    with serve(honest) as one, serve(honest) as two, Ledger(":memory:") as ledger:
        fill(engine(one.url), EXAMPLES, ANSWERS, ledger)
        fill(engine(two.url), EXAMPLES, ANSWERS, ledger)
        assert (len(one.calls), len(two.calls)) == (TOTAL, TOTAL)


def test_two_runs_share_a_ledger(tmp_path: Path, undisturbed: dict[Key, Generation]) -> None:
    with serve(honest) as server:
        for run, n in (("r1", 20), ("r2", 40)):
            with Ledger(tmp_path / "shared.sqlite", run=run) as ledger:
                fill(engine(server.url), EXAMPLES[:n], ANSWERS, ledger)
        assert len(server.calls) == TOTAL
    with Ledger(tmp_path / "shared.sqlite", readonly=True) as ledger:
        assert sum(ledger.counts("r1")["teacher"].values()) == sum(ledger.counts("r2")["teacher"].values()) == 40
        assert by_id([g for same in recorded(EXAMPLES, ANSWERS, ledger).values() for g in same]) == undisturbed


# -- 6, 7, 21: input and seeds --------------------------------------------------------------------------


def test_only_new_prompts_are_sent_and_order_never_matters(undisturbed: dict[Key, Generation]) -> None:
    with serve(honest) as server, Ledger(":memory:") as ledger:
        for rows, new in ((EXAMPLES[:10], 20), (EXAMPLES[9::-1], 0), (EXAMPLES[5:20], 20), (EXAMPLES, 40)):
            before = len(server.calls)
            answers = by_id(answer(engine(server.url), rows, ANSWERS, ledger))
            assert len(server.calls) - before == new
            assert answers == {k: g for k, g in undisturbed.items() if k in answers}


def test_samples_and_equal_prompts_have_seeds_of_their_own() -> None:
    same = [Example("a", "the same"), Example("b", "the same")]
    with serve(honest) as server, Ledger(":memory:") as ledger:
        answers = answer(engine(server.url), same, ANSWERS, ledger)
        assert len({c.body["seed"] for c in server.calls}) == 4
        assert all(0 <= c.body["seed"] < 2**31 for c in server.calls)
    assert len({g.text for g in answers}) == 4


# -- 10, 11: what is recorded when the provider says no -------------------------------------------------


def test_a_refused_run_marks_nothing_and_goes_on_once_it_may(undisturbed: dict[Key, Generation]) -> None:
    def script(call: Call) -> Response:
        return error(429, "quota", code="insufficient_quota") if call.number >= 30 and not paid else honest(call)

    paid = False
    with serve(script) as server, Ledger(":memory:") as ledger:
        with pytest.raises(ProviderError):
            fill(engine(server.url), EXAMPLES, ANSWERS, ledger)
        counts = ledger.counts()["teacher"]
        assert set(counts) <= {"ok", "truncated"}
        assert sum(counts.values()) == 30
        paid = True
        assert by_id(answer(engine(server.url), EXAMPLES, ANSWERS, ledger)) == undisturbed


def test_failed_rows_are_asked_again_and_bad_ones_are_not(undisturbed: dict[Key, Generation]) -> None:
    bad = {f"question {i}" for i in (3, 4)}
    failing = {f"question {i}" for i in (7, 8, 9)}

    def script(call: Call) -> Response:
        if call.prompt in bad:
            return error(400, "not this one")
        return error(503, "busy") if call.prompt in failing and not recovered else honest(call)

    recovered = False
    with serve(script) as server, Ledger(":memory:") as ledger:
        one = engine(server.url, max_attempts=2)
        counts = fill(one, EXAMPLES, ANSWERS, ledger)
        assert (counts["bad_request"], counts["failed"]) == (4, 6)
        assert sum(counts.values()) == TOTAL
        recovered = True
        before = len(server.calls)
        counts = fill(one, EXAMPLES, ANSWERS, ledger)
        assert len(server.calls) - before == 6
        assert counts["bad_request"] == 4
        assert "failed" not in counts
        same = recorded(EXAMPLES, ANSWERS, ledger)
        assert {g.outcome for g in same["id 3"]} == {Outcome.BAD_REQUEST}
        assert by_id(same["id 7"]) == {k: g for k, g in undisturbed.items() if k[0] == "id 7"}


# -- a whole batch is passed over -----------------------------------------------------------------------


def test_what_is_whole_is_passed_over_without_a_look_at_its_rows() -> None:
    with serve(honest) as server, Ledger(":memory:") as ledger:
        first = fill(engine(server.url), EXAMPLES, ANSWERS, ledger)
        queries: list[str] = []
        ledger._db.set_trace_callback(queries.append)
        bar = Progress("teacher", TOTAL, "answers")
        assert fill(engine(server.url), EXAMPLES, ANSWERS, ledger, bar) == first
        assert (bar.done, bar.before) == (TOTAL, TOTAL)
        assert len(queries) == 1


# -- 19: longer than the context ------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_prompts_longer_than_the_context_are_found_before_they_are_sent(api: str) -> None:
    tokenizer = train_tokenizer(chat_template=CHATML)
    texts = ["x" * n for n in range(20, 60)]
    chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n" if api == "chat" else "{}"
    sizes = [len(tokenizer.encode(chat.format(t))) for t in texts]
    context = sizes[20] + SAMPLING.max_new_tokens
    examples = [Example(f"{n}", t) for n, t in zip(sizes, texts, strict=True)]
    with serve(honest) as server, Ledger(":memory:") as ledger:
        section = OpenAIEngine(base_url=server.url, api=api, tokenizer="somewhere", context=context)
        limited = OpenAI(section, "big", PromptSection(), tokenizer=tokenizer, clock=FakeClock())
        counts = fill(limited, examples, replace(ANSWERS, sampling=Sampling(0.7, 16)), ledger)
        sent = {len(c.prompt) for c in server.calls}
    fits = [t for n, t in zip(sizes, texts, strict=True) if n + 16 <= context]
    assert sent == {len(t) for t in fits}
    assert counts["too_long"] == len(texts) - len(fits) > 0


# -- prompts --------------------------------------------------------------------------------------------

TALK = Example("t", ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}))


@pytest.mark.parametrize(
    ("prompt", "api", "example", "sent"),
    [
        ({}, "chat", Example("e", "hi"), [{"role": "user", "content": "hi"}]),
        (
            {"system": "be brief", "template": "Q: {prompt}\nA:"},
            "chat",
            Example("e", "hi"),
            [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Q: hi\nA:"}],
        ),
        ({"template": "Q: {prompt}\nA:"}, "completions", Example("e", "hi {prompt}"), "Q: hi {prompt}\nA:"),
        ({}, "chat", TALK, [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]),
    ],
)
def test_a_prompt_is_put_as_the_api_and_the_template_want(
    prompt: dict[str, str], api: str, example: Example, sent: Any
) -> None:
    put = engine("http://h", api=api, prompt=PromptSection(**prompt)).encode(example)
    assert json.loads(json.dumps(put)) == sent


@pytest.mark.parametrize("settings", [{"api": "completions"}, {"prompt": PromptSection(template="{prompt}")}])
def test_a_conversation_that_cant_be_put_so_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="a conversation, but"):
        engine("http://h", **settings).encode(TALK)
