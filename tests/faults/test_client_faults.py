"""Everything a provider can do wrong, by a real server on loopback; time and chance are injected, so nothing waits."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from plad.answers.question import Sampling
from plad.answers.reply import Reply
from plad.config.engines import Endpoint, PriceSection
from plad.errors import ConfigError, ProviderError
from plad.records import Outcome
from plad.remote.client import complete
from plad.remote.request import HttpRequest, completion_request
from tests.support.servers.scripted import Call, FakeClock, Response, Script, answer, as_json, error, http_date, serve


def ask(
    script: Script,
    n: int = 1,
    *,
    clock: FakeClock | None = None,
    draw: Callable[[], float] = lambda: 0.5,
    **settings: Any,
) -> tuple[dict[str, Reply], list[Call]]:
    """Ask `n` prompts "p0", "p1", ...; returns the replies by prompt, and the calls."""
    replies: dict[str, Reply] = {}

    def keep(request: HttpRequest, reply: Reply) -> None:
        assert request.key not in replies, "settled twice"
        replies[request.key] = reply

    with serve(script) as server:
        endpoint = Endpoint(base_url=server.url, **{"concurrency": 1, "timeout_s": 5.0, **settings})
        requests = (
            completion_request(
                endpoint, "big", f"p{i}", [{"role": "user", "content": f"p{i}"}], Sampling(0.7, 8), seed=i
            )
            for i in range(n)
        )
        complete(endpoint, requests, keep, clock=clock or FakeClock(), draw=draw)
    return replies, server.calls


def first(bad: Response) -> Script:
    """`bad` at the first attempt, an answer at the next."""
    return lambda call: answer() if call.attempt else bad


# -- what is sent ---------------------------------------------------------------------------------------


def test_a_request_carries_what_was_asked_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary-key")
    replies, calls = ask(lambda _: answer("Paris"), api_key_env="MY_KEY", price=PriceSection(input=1.0, output=10.0))
    assert calls[0].path == "/v1/chat/completions"
    assert calls[0].headers["Authorization"] == "Bearer canary-key"
    assert calls[0].body == {
        "model": "big",
        "messages": [{"role": "user", "content": "p0"}],
        "max_tokens": 8,
        "temperature": 0.7,
        "seed": 0,
    }
    reply = replies["p0"]
    assert (reply.outcome, reply.text, reply.model) == (Outcome.OK, "Paris", "big")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.estimated) == (5, 2, False)
    assert reply.cost == pytest.approx((5 * 1 + 2 * 10) / 1e6)
    assert (reply.attempts, reply.lost) == (1, 0)


def test_fields_are_named_added_and_left_out_as_the_provider_wants_them() -> None:
    _, calls = ask(
        lambda _: answer(),
        max_tokens_field="max_completion_tokens",
        seed_field=None,
        body={"temperature": None, "reasoning_effort": "low"},
    )
    assert calls[0].body == {
        "model": "big",
        "messages": [{"role": "user", "content": "p0"}],
        "max_completion_tokens": 8,
        "reasoning_effort": "low",
    }


def test_plain_completions_have_a_prompt_and_a_text() -> None:
    got: list[Reply] = []
    with serve(lambda _: as_json({"choices": [{"text": " blue.", "finish_reason": "length"}]})) as server:
        endpoint = Endpoint(base_url=server.url)
        request = completion_request(endpoint, "big", "k", "The sky is", Sampling(0.0, 4), seed=2**40 + 3)
        complete(endpoint, [request], lambda _, reply: got.append(reply), clock=FakeClock())
    assert server.calls[0].path == "/v1/completions"
    assert server.calls[0].body == {
        "model": "big",
        "prompt": "The sky is",
        "max_tokens": 4,
        "temperature": 0.0,
        "seed": 3,
    }
    assert (got[0].outcome, got[0].text) == (Outcome.TRUNCATED, "blue.")
    assert (got[0].prompt_tokens, got[0].completion_tokens, got[0].estimated) == (2, 2, True)


def test_all_are_settled_with_many_in_flight() -> None:
    barrier = threading.Barrier(8)

    def script(call: Call) -> Response:
        if call.number < 8:
            barrier.wait(10)  # passes only if eight are in flight at once
        return answer(call.prompt)

    replies, _ = ask(script, 50, concurrency=8)
    assert {key: r.text for key, r in replies.items()} == {f"p{i}": f"p{i}" for i in range(50)}


# -- 8: rate limits with a wait, in all its spellings ---------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "1"}, 1.0),
        ({"Retry_After": "200"}, 200.0),
        ({"Retry_After": "1.5"}, 1.5),
        ({"Retry_After": "1m30s"}, 90.0),
        ({"Retry_After": "500ms"}, 0.5),
        ({"retry_after_ms": "2500"}, 2.5),
        ({"Retry_After": http_date(3600)}, 600.0),  # never longer than max_wait_s
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),  # in the past
        ({"Retry_After": "99999"}, 600.0),
        ({"Retry_After": "soon"}, 0.5),  # rubbish: backoff, by half a draw
        ({"Retry_After": "-3"}, 0.5),
        ({"Retry_After": "nan"}, 0.5),
        ({"Retry_After": ""}, 0.5),
        ({}, 0.5),
    ],
)
def test_a_rate_limit_pauses_for_as_long_as_it_says(headers: dict[str, str], seconds: float) -> None:
    clock = FakeClock()
    replies, calls = ask(first(error(429, "slow down", headers=headers)), clock=clock)
    assert replies["p0"].outcome is Outcome.OK
    assert replies["p0"].attempts == len(calls) == 2
    assert sum(clock.slept) == pytest.approx(seconds)


def test_googles_retry_delay_is_read_from_a_list_of_errors() -> None:
    clock = FakeClock()
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}]
    ask(first(as_json([{"error": {"code": 429, "message": "quota", "details": details}}], 429)), clock=clock)
    assert sum(clock.slept) == pytest.approx(37)


def test_all_workers_pause_and_fewer_go_on_until_answers_come_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    seen: list[float] = []
    in_flight = threading.Barrier(8)

    def script(call: Call) -> Response:
        if call.number < 8:
            in_flight.wait(10)
            return error(429, "slow down", headers={"Retry_After": "200"})
        seen.append(clock.now())
        return answer()

    with caplog.at_level(logging.INFO, "plad"):
        replies, _ = ask(script, 40, clock=clock, concurrency=8)
    assert len(replies) == 40
    assert {r.outcome for r in replies.values()} == {Outcome.OK}
    assert min(seen) >= 1200, "somebody sent during the pause"
    limits = [r for r in caplog.records if "rate limit" in r.getMessage()]
    assert len(limits) == 1, "eight refusals at once are one rate limit"
    assert "pause of 200.0 s, then 4 at once" in limits[0].getMessage()


def test_a_waited_for_limit_never_fails_a_row_but_one_that_never_ends_stops_the_run() -> None:
    limit = error(429, "slow down", headers={"Retry_After": "10"})
    replies, _ = ask(lambda call: answer() if call.attempt >= 20 else limit, max_attempts=3)
    assert replies["p0"].outcome is Outcome.OK
    with pytest.raises(ProviderError, match=r"nothing came through for 6[0-9]+ s.*slow down") as caught:
        ask(lambda _: limit, max_attempts=3)
    assert caught.value.exit_code == 3
    assert "same command continues" in str(caught.value)


# -- 9: passing failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        error(500),
        error(502),
        error(503),
        error(529, "overloaded"),
        error(408),
        error(409),
        error(429),
        Response(way="reset"),
        Response(way="hang"),
        Response(answer().body, way="drip"),
        Response(answer().body, way="cut"),
    ],
    ids=["500", "502", "503", "529", "408", "409", "429", "reset", "hang", "drip", "cut"],
)
def test_a_passing_failure_is_tried_again(bad: Response) -> None:
    quick = {"timeout_s": 0.2} if bad.way in ("hang", "drip") else {}
    replies, calls = ask(first(bad), **quick)
    reply = replies["p0"]
    assert (reply.outcome, reply.text, reply.attempts, len(calls)) == (Outcome.OK, "an answer", 2, 2)
    assert reply.lost == (bad.way != "whole"), "a broken connection may have been billed, an error status is not"


def test_backoff_grows_with_full_jitter_and_ends_in_a_failed_row() -> None:
    clock = FakeClock()
    draws = iter([0.5, 1.0, 0.25, 0.5, 0.0, 0.0, 0.0, 0.0])
    replies, calls = ask(lambda _: error(500, "boom"), clock=clock, draw=lambda: next(draws), max_attempts=5)
    assert len(calls) == 5
    assert clock.slept == [0.5, 2.0, 1.0, 4.0]  # draw x (1, 2, 4, 8)
    reply = replies["p0"]
    assert (reply.outcome, reply.attempts, reply.text) == (Outcome.FAILED, 5, "")
    assert reply.message == "HTTP 500: boom"


def test_backoff_is_never_longer_than_a_minute() -> None:
    clock = FakeClock()
    ask(lambda _: error(500), clock=clock, draw=lambda: 1.0, max_attempts=12)
    assert max(clock.slept) == 60


def test_a_server_that_isnt_there_stops_the_run_after_a_few_rows() -> None:
    with serve(lambda _: answer()) as server:
        pass
    endpoint = Endpoint(base_url=server.url, concurrency=4, max_attempts=2)
    got: list[Reply] = []
    requests = (
        completion_request(endpoint, "big", str(i), [{"role": "user", "content": "?"}], Sampling(0.0, 1))
        for i in range(1000)
    )
    with pytest.raises(ProviderError, match=r"the last 20 requests brought no answer.*no connection") as caught:
        complete(endpoint, requests, lambda _, reply: got.append(reply), clock=FakeClock())
    assert caught.value.where == server.url
    assert len(got) <= 24
    assert {(r.outcome, r.lost) for r in got} == {(Outcome.FAILED, 0)}


def test_an_unknown_host_is_a_failure_to_connect() -> None:
    endpoint = Endpoint(base_url="http://no-such-host.invalid/v1", max_attempts=2)
    got: list[Reply] = []
    request = completion_request(endpoint, "big", "k", [{"role": "user", "content": "?"}], Sampling(0.0, 1))
    complete(endpoint, [request], lambda _, reply: got.append(reply), clock=FakeClock())
    assert got[0].outcome is Outcome.FAILED
    assert "no connection" in (got[0].message or "")


# -- 10: refusals that concern the whole run ------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "way_out"),
    [
        (error(401, "bad key"), "api_key_env"),
        (error(403, "not yours"), "api_key_env"),
        (error(404, "no such model", code="model_not_found"), "check `model`"),
        (error(429, "You exceeded your current quota", code="insufficient_quota"), "settle it"),
        (error(400, "pay first", type="insufficient_balance"), "settle it"),
        (error(402, "pay first"), "settle it"),
        (Response(status=302, headers={"Location": "https://login.example"}), "redirects to https://login.example"),
    ],
    ids=["401", "403", "404", "quota", "balance", "402", "302"],
)
def test_a_refusal_of_the_whole_run_stops_it_at_once(bad: Response, way_out: str) -> None:
    with pytest.raises(ProviderError) as caught:
        ask(lambda _: bad, 100)
    assert caught.value.exit_code == 3
    assert way_out in str(caught.value)


def test_one_stop_and_requests_in_flight_still_arrive() -> None:
    """The third request is refused while two others are being answered: both are kept, nothing more is sent."""
    refused = threading.Event()
    got: list[str] = []

    def script(call: Call) -> Response:
        if call.prompt == "p2":
            refused.set()
            return error(401, "revoked")
        refused.wait(10)
        return answer(call.prompt)

    with serve(script) as server:
        endpoint = Endpoint(base_url=server.url, concurrency=3)
        requests = [
            completion_request(endpoint, "big", f"p{i}", [{"role": "user", "content": f"p{i}"}], Sampling(0.0, 1))
            for i in range(50)
        ]
        with pytest.raises(ProviderError, match="revoked"):
            complete(endpoint, requests, lambda _, r: got.append(r.text), clock=FakeClock())
        assert len(server.calls) <= 5
    assert {"p0", "p1"} <= set(got)


# -- 11: requests that are bad themselves ---------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_recorded_with_the_providers_words_and_not_tried_again(status: int) -> None:
    replies, calls = ask(lambda call: error(status, "no\n such  thing") if call.prompt == "p1" else answer(), 3)
    assert len(calls) == 3
    assert replies["p1"].outcome is Outcome.BAD_REQUEST
    assert replies["p1"].message == f"HTTP {status}: no such thing"


def test_if_the_first_twenty_are_bad_the_settings_are_and_nothing_is_recorded() -> None:
    got: list[Reply] = []
    with serve(lambda _: error(400, "unknown field seed")) as server:
        endpoint = Endpoint(base_url=server.url, concurrency=1)
        requests = (
            completion_request(endpoint, "big", str(i), [{"role": "user", "content": str(i)}], Sampling(0.0, 1))
            for i in range(100)
        )
        with pytest.raises(ProviderError, match=r"the last 20 requests brought no answer.*unknown field seed"):
            complete(endpoint, requests, lambda _, r: got.append(r), clock=FakeClock())
    assert len(server.calls) <= 21
    assert got == []


def test_bad_requests_before_the_first_answer_are_recorded_once_it_comes() -> None:
    replies, _ = ask(lambda call: error(400) if call.number < 19 else answer(), 25)
    assert [r.outcome for r in replies.values()].count(Outcome.BAD_REQUEST) == 19
    assert len(replies) == 25


def test_a_few_bad_requests_and_nothing_else_are_recorded() -> None:
    replies, _ = ask(lambda _: error(422), 3)
    assert [r.outcome for r in replies.values()] == [Outcome.BAD_REQUEST] * 3


@pytest.mark.parametrize(
    "bad",
    [
        error(400, "too much", code="context_length_exceeded"),
        error(400, "This model's maximum context length is 4096 tokens."),
        error(400, "the request exceeds the available context size", type="exceed_context_size_error"),
    ],
)
def test_a_prompt_longer_than_the_context_is_too_long(bad: Response) -> None:
    assert ask(lambda _: bad)[0]["p0"].outcome is Outcome.TOO_LONG


# -- 12: a good status and a bad body -------------------------------------------------------------------

UNREADABLE = {
    "html": Response(b"<html>Please log in</html>", headers={"Content-Type": "text/html"}),
    "half a JSON": Response(answer().body[:40]),
    "empty": Response(b""),
    "no choices": answer(choices="left out"),
    "null choices": answer(choices=None),
    "empty choices": answer(choices=[]),
    "odd choices": answer(choices=["?"]),
    "a list": as_json([1, 2]),
    "an error": as_json({"error": {"message": "upstream failed", "code": 502}}),
    "an error in words": as_json({"error": "upstream failed"}),
    "an error in the choice": answer("half", finish="error"),
    "an error beside null choices": answer(choices=None, error={"message": "?"}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_answer_is_tried_again_and_then_failed_and_never_an_answer(name: str) -> None:
    bad = UNREADABLE[name]
    replies, _ = ask(first(bad))
    assert (replies["p0"].outcome, replies["p0"].attempts) == (Outcome.OK, 2)
    replies, _ = ask(lambda _: bad, max_attempts=3)
    assert (replies["p0"].outcome, replies["p0"].text, replies["p0"].attempts) == (Outcome.FAILED, "", 3)
    assert replies["p0"].message


def test_an_error_in_a_good_status_counts_as_what_it_says() -> None:
    with pytest.raises(ProviderError, match="no key"):
        ask(lambda _: as_json({"error": {"message": "no key", "code": 401}}))


# -- 13-16: answers that are none, or half one ----------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "outcome", "text"),
    [
        (answer(None), Outcome.EMPTY, ""),
        (answer(""), Outcome.EMPTY, ""),
        (answer(" \n"), Outcome.EMPTY, ""),
        (answer(None, message={"tool_calls": [{"id": 1}]}), Outcome.EMPTY, ""),
        (answer(None, message={"refusal": "I can't help with that."}), Outcome.REFUSED, ""),
        (answer("half an ans", finish="content_filter"), Outcome.FILTERED, ""),
        (error(400, "filtered", code="content_filter"), Outcome.FILTERED, ""),
        (error(403, "flagged", metadata={"reasons": ["violence"]}), Outcome.FILTERED, ""),
        (answer("half an ans", finish="length"), Outcome.TRUNCATED, "half an ans"),
        (answer("whole", finish=None), Outcome.OK, "whole"),
        (answer(" yes\n"), Outcome.OK, "yes"),
        (answer([{"type": "thinking", "thinking": [{}]}, {"type": "text", "text": "yes"}]), Outcome.OK, "yes"),
        (answer("<think>hm, \n</think>\n\nyes"), Outcome.OK, "yes"),
        (answer("say <think> and </think>"), Outcome.OK, "say <think> and </think>"),
        (answer("a lone \ud800 surrogate"), Outcome.OK, "a lone ? surrogate"),
    ],
)
def test_how_an_answer_ended_decides_what_it_is(response: Response, outcome: Outcome, text: str) -> None:
    replies, calls = ask(lambda _: response)
    assert len(calls) == 1, "none of these is tried again"
    assert (replies["p0"].outcome, replies["p0"].text) == (outcome, text)


@pytest.mark.parametrize(
    "response",
    [
        answer("", finish="length", message={"reasoning_content": "let me think"}),
        answer(None, finish="length", message={"reasoning": "let me think"}),
        answer("<think>let me think", finish="length"),
    ],
)
def test_reasoning_never_becomes_the_answer_and_the_hint_says_what_to_change(response: Response) -> None:
    reply = ask(lambda _: response)[0]["p0"]
    assert (reply.outcome, reply.text) == (Outcome.EMPTY, "")
    assert "raise max_new_tokens" in (reply.message or "")


# -- 17: other counts, other models ---------------------------------------------------------------------


def test_of_several_choices_the_first_is_the_answer() -> None:
    choices = [{"message": {"content": t}, "finish_reason": "stop"} for t in ("one", "two", "three")]
    replies, _ = ask(lambda _: answer(choices=choices), 2)
    assert {r.text for r in replies.values()} == {"one"}


def test_another_model_than_asked_for_is_kept_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    replies, _ = ask(lambda _: answer(model="small"), 5)
    assert {r.model for r in replies.values()} == {"small"}
    assert [r.getMessage() for r in caplog.records] == ["asked for model big, served by small"]


def test_a_dated_name_of_the_same_model_is_no_other_model(caplog: pytest.LogCaptureFixture) -> None:
    ask(lambda _: answer(model="big-2026-11-01"))
    assert caplog.records == []


def test_tokens_nobody_counted_are_estimated_and_said_to_be() -> None:
    reply = ask(lambda _: answer("x" * 40, usage=None))[0]["p0"]
    assert (reply.completion_tokens, reply.estimated) == (10, True)
    assert reply.prompt_tokens > 0


# -- 2: stopped by the user -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_requests_in_flight_end_and_sends_no_more(number: signal.Signals) -> None:
    former = signal.signal(number, signal.default_int_handler)
    got: list[str] = []

    def script(call: Call) -> Response:
        if call.number == 3:
            os.kill(os.getpid(), number)
        return answer(call.prompt)

    try:
        with serve(script) as server:
            endpoint = Endpoint(base_url=server.url, concurrency=2)
            requests = [
                completion_request(endpoint, "big", f"{i}", [{"role": "user", "content": f"{i}"}], Sampling(0.0, 1))
                for i in range(200)
            ]
            with pytest.raises(KeyboardInterrupt):
                complete(endpoint, requests, lambda _, r: got.append(r.text), clock=FakeClock())
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, former)
    assert len(got) == len(server.calls) < 200, "an answer that was paid for was thrown away"


def test_a_second_signal_stops_at_once() -> None:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)

    def script(call: Call) -> Response:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return Response(way="hang")

    try:
        with pytest.raises(KeyboardInterrupt):
            ask(script, timeout_s=20)
    finally:
        signal.signal(signal.SIGINT, former)


def test_an_error_of_the_callback_stops_everything() -> None:
    def fail(_: HttpRequest, __: Reply) -> None:
        raise OSError("disk full")

    with serve(lambda _: answer()) as server:
        endpoint = Endpoint(base_url=server.url, concurrency=2)
        requests = (
            completion_request(endpoint, "big", str(i), [{"role": "user", "content": "?"}], Sampling(0.0, 1))
            for i in range(100)
        )
        with pytest.raises(OSError, match="disk full"):
            complete(endpoint, requests, fail)
        assert len(server.calls) <= 4


# -- 53: the key is nowhere -----------------------------------------------------------------------------


def test_the_key_is_in_no_log_no_reply_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "canary0123456789")
    with caplog.at_level(logging.DEBUG):
        replies, _ = ask(lambda c: error(400, f"you sent {c.headers['Authorization']}"), api_key_env="MY_KEY")
        with pytest.raises(ProviderError) as caught:
            ask(lambda c: error(401, f"you sent {c.headers['Authorization']}"), api_key_env="MY_KEY")
        ask(first(error(500, "canary0123456789 is not a key")), api_key_env="MY_KEY")
    everything = str(caught.value) + str(replies) + caplog.text
    assert "[redacted]" in everything
    assert "canary" not in everything


def test_a_key_that_isnt_set_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set") as caught:
        ask(lambda _: answer(), api_key_env="MY_KEY")
    assert "export MY_KEY=" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://user:secret@host/v1", "https://host/v1?key=secret", "host/v1", "ftp://host", "http://", "http://h:x/"],
)
def test_an_address_that_may_hold_a_secret_or_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Endpoint(base_url=url)
    assert "secret" not in str(caught.value).split("[type")[0]


def test_a_key_in_place_of_a_variables_name_is_refused() -> None:
    with pytest.raises(ValueError, match="never a key"):
        Endpoint(base_url="http://host", api_key_env="sk-abc")
