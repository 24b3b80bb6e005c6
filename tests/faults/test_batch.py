"""The batch API of a provider on loopback: whatever becomes of a batch, every answer is recorded, and nothing is asked
twice. Case 18 of the fault matrix, and restarts between upload, submit and result.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from plad.answers.fill import answer, fill
from plad.answers.jobs import Jobs
from plad.answers.ledger import Ledger
from plad.answers.paid import spent
from plad.answers.question import AnswerSet, Sampling
from plad.config.engines import BudgetSection, PriceSection
from plad.config.models import PromptSection
from plad.errors import BudgetError, Interrupted, ProviderError
from plad.records import Example, Generation, Outcome
from plad.remote.budget import Budget
from plad.remote.openai import OpenAI, OpenAIEngine
from tests.support.servers.batch_provider import Provider, Row, answered, expired, honest, refused
from tests.support.servers.scripted import Call, FakeClock, Response, error, serve

EXAMPLES = [Example(f"id {i}", f"question {i}") for i in range(30)]
SAMPLING = Sampling(0.7, 16, samples=2)
TOTAL = 60
ANSWERS = AnswerSet("teacher", "w", SAMPLING, 3)
Key = tuple[str, int]


def engine(url: str, ledger: Ledger, **settings: Any) -> OpenAI:
    batch = {"max_requests": 20, "poll_s": 10.0, **settings.pop("batch", {})}
    clock, budget = settings.pop("clock", None) or FakeClock(), settings.pop("budget", None)
    section = OpenAIEngine.model_validate_json(
        json.dumps({"base_url": url, "mode": "batch", "max_attempts": 3, "batch": batch, **settings})
    )
    jobs = Jobs(ledger, url, "teacher")
    return OpenAI(section, "big", PromptSection(), clock=clock, jobs=jobs, budget=budget or Budget())


def by_id(generations: list[Generation]) -> dict[Key, Generation]:
    return {(g.example_id, g.sample): g for g in generations}


def texts(ledger: Ledger) -> dict[Key, str]:
    return {(r.generation.example_id, r.generation.sample): r.generation.text for r in ledger.rows()}


def run(provider: Provider, **settings: Any) -> tuple[dict[str, int], dict[Key, Generation]]:
    """Outcomes and answers of a fresh ledger."""
    with serve(provider) as server, Ledger(":memory:", run="r") as ledger:
        one = engine(server.url, ledger, **settings)
        answers = by_id(answer(one, EXAMPLES, ANSWERS, ledger))
        assert Jobs(ledger, server.url, "teacher").open() == []
        return Counter(str(g.outcome) for g in answers.values()), answers


@pytest.fixture(scope="module")
def undisturbed() -> dict[Key, Generation]:
    return run(Provider())[1]


# -- the way of a batch ---------------------------------------------------------------------------------


def test_requests_go_in_batches_within_the_limits_and_come_back_by_custom_id(
    undisturbed: dict[Key, Generation],
) -> None:
    provider = Provider(arrange=lambda rows: random.Random(1).sample(rows, len(rows)))
    clock = FakeClock()
    counts, answers = run(provider, clock=clock)
    assert (counts, answers) == ({"ok": TOTAL}, undisturbed)
    assert all(g.text.startswith(f"question {i.split()[1]} ") for (i, _), g in answers.items())
    assert [len(provider.lines(b)) for b in provider.batches.values()] == [20, 20, 20]
    assert set(provider.asked.values()) == {1}
    first = provider.lines(provider.batches["batch-0"])[0]
    assert (first["method"], first["url"], len(first["custom_id"])) == ("POST", "/v1/chat/completions", 64)
    assert set(first["body"]) == {"model", "messages", "max_tokens", "temperature", "seed"}
    assert provider.batches["batch-0"]["completion_window"] == "24h"


def test_each_wait_is_longer_by_half_up_to_the_longest() -> None:
    clock = FakeClock()
    run(Provider(looks=5), clock=clock, batch={"max_requests": 100, "max_poll_s": 40.0})
    assert clock.slept == [10.0, 15.0, 22.5, 33.75, 40.0, 40.0]


def test_a_file_has_no_more_bytes_than_allowed() -> None:
    provider = Provider()
    assert run(provider, batch={"max_bytes": 2_000, "at_once": 1})[0] == {"ok": TOTAL}
    sizes = [len(provider.files[b["input_file_id"]]) for b in provider.batches.values()]
    assert max(sizes) <= 2_000 < sum(sizes[:2])


def test_the_same_answers_come_live_and_in_batches(
    undisturbed: dict[Key, Generation], caplog: pytest.LogCaptureFixture
) -> None:
    """What one mode recorded, the other finds: the key says what shapes an answer, not how it is fetched."""
    with serve(Provider()) as server, Ledger(":memory:", run="r") as ledger:
        fill(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)
        sent = len(server.calls)
        live = engine(server.url, ledger, mode="live")
        Jobs(ledger, server.url, "teacher").begin([])
        assert by_id(answer(live, EXAMPLES, ANSWERS, ledger)) == undisturbed
        assert len(server.calls) == sent
        assert "1 batches of an earlier session are under way" in caplog.text


# -- 18: what a batch leaves out ------------------------------------------------------------------------


def third(line: Row) -> bool:
    return int(line["body"]["messages"][-1]["content"].split()[1]) % 3 == 0


@pytest.mark.parametrize(
    "bad",
    [
        lambda line: None,
        expired,
        lambda line: refused(line, 500),
        lambda line: refused(line, 429, "slow down"),
        lambda line: refused(line, 0),
        lambda line: {"custom_id": line["custom_id"], "response": None, "error": None},
        lambda line: answered(line, "?", choices=[]),
    ],
    ids=["missing", "expired", "500", "429", "status 0", "nothing", "no choices"],
)
def test_only_what_is_missing_is_asked_again(bad: Any, undisturbed: dict[Key, Generation]) -> None:
    again: set[str] = set()

    def row(line: Row, _: int) -> Row | None:
        if not third(line) or line["custom_id"] in again:
            return honest(line)
        again.add(line["custom_id"])
        return bad(line)

    provider = Provider(row=row)
    counts, answers = run(provider)
    assert (counts, answers) == ({"ok": TOTAL}, undisturbed)
    assert provider.asked == Counter(provider.asked.keys()) + Counter(again)


def test_what_is_missing_every_time_has_failed(undisturbed: dict[Key, Generation]) -> None:
    provider = Provider(row=lambda line, _: refused(line, 503, "busy") if third(line) else honest(line))
    with serve(provider) as server, Ledger(":memory:", run="r") as ledger:
        counts = fill(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)
        assert counts == {"ok": 40, "failed": 20}
        assert list(ledger.messages("teacher")) == ["HTTP 503: busy"]
        assert sorted(Counter(provider.asked.values()).items()) == [(1, 40), (3, 20)]
        provider.row = lambda line, _: honest(line)
        assert by_id(answer(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)) == undisturbed


def test_an_expired_batch_keeps_what_it_brought(undisturbed: dict[Key, Generation]) -> None:
    provider = Provider(
        row=lambda line, number: expired(line) if third(line) and number == 0 else honest(line),
        end=lambda number: "completed" if number else "expired",
    )
    assert run(provider) == ({"ok": TOTAL}, undisturbed)
    assert len(provider.batches) == 4
    assert sum(provider.asked.values()) < TOTAL + 20


def test_a_batch_that_expired_with_nothing_is_asked_again_whole() -> None:
    provider = Provider(
        row=lambda line, number: honest(line) if number else None,
        end=lambda number: "completed" if number else "expired",
    )
    assert run(provider)[0] == {"ok": TOTAL}
    assert sum(provider.asked.values()) == TOTAL + 20


def test_rows_that_fail_become_outcomes_as_of_single_requests() -> None:
    def row(line: Row, _: int) -> Row:
        i = int(line["body"]["messages"][-1]["content"].split()[1])
        made: dict[int, Row] = {
            0: refused(line, 400, "not this one"),
            1: refused(line, 400, "filtered", code="content_filter"),
            2: refused(line, 400, "too much", code="context_length_exceeded"),
            3: answered(line, ""),
            4: answered(line, "half", choices=[{"message": {"content": "half"}, "finish_reason": "length"}]),
            5: answered(line, None, choices=[{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]),
        }
        return made.get(i, honest(line))

    counts, answers = run(Provider(row=row))
    assert counts == {
        "bad_request": 2,
        "filtered": 2,
        "too_long": 2,
        "empty": 2,
        "truncated": 2,
        "refused": 2,
        "ok": TOTAL - 12,
    }
    assert answers["id 4", 0].text == "half"
    assert answers["id 0", 1].outcome is Outcome.BAD_REQUEST


def test_duplicates_unknown_ids_and_torn_rows_are_counted(
    undisturbed: dict[Key, Generation], caplog: pytest.LogCaptureFixture
) -> None:
    def arrange(rows: list[Row]) -> list[Row | str]:
        other = {**rows[0], "custom_id": "somebody else's"}
        return [other, *rows, rows[0], answered({"custom_id": rows[1]["custom_id"]}, "a second answer"), '{"custom_']

    with caplog.at_level(logging.WARNING, "plad"):
        assert run(Provider(arrange=arrange), batch={"max_requests": 100}) == ({"ok": TOTAL}, undisturbed)
    assert "rows left out: 2 duplicate, 1 unknown, 1 unreadable" in caplog.text


def test_a_bad_line_that_fails_the_whole_batch_is_bad_and_the_others_are_asked_again(
    undisturbed: dict[Key, Generation],
) -> None:
    provider = Provider(
        end=lambda number: "failed" if number == 1 else "completed",
        errors=lambda _: [{"code": "invalid_request", "message": "no such field", "line": 2}],
    )
    counts, answers = run(provider)
    assert counts == {"ok": TOTAL - 1, "bad_request": 1}
    assert sum(provider.asked.values()) == TOTAL + 19
    assert {k: g for k, g in answers.items() if g.outcome is Outcome.OK}.items() <= undisturbed.items()


def test_a_batch_without_room_is_tried_later_and_smaller(undisturbed: dict[Key, Generation]) -> None:
    clock = FakeClock()
    provider = Provider(
        end=lambda number: "failed" if number < 1 else "completed",
        errors=lambda _: [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}],
    )
    assert run(provider, clock=clock, batch={"at_once": 1}) == ({"ok": TOTAL}, undisturbed)
    assert [len(provider.lines(b)) for b in provider.batches.values()] == [20, 10, 10, 10, 10, 10, 10]
    assert 600.0 in clock.slept


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        (
            Provider(end=lambda _: "failed", errors=lambda _: [{"code": "model_not_found", "message": "no big"}]),
            "model_not_found: no big",
        ),
        (Provider(end=lambda _: "failed"), "no reason is given"),
        (
            Provider(row=lambda line, _: refused(line, 400, "unknown field seed")),
            "all 20 requests of the batch are bad",
        ),
        (Provider(row=lambda line, _: refused(line, 401, "revoked")), "revoked"),
        (Provider(before=lambda c: error(401, "bad key") if c.path == "/v1/files" else None), "bad key"),
        (Provider(before=lambda c: error(404) if c.path == "/v1/batches" else None), "mode: live"),
        (
            Provider(end=lambda _: "failed", errors=lambda _: [{"code": "token_limit_exceeded", "message": "no room"}]),
            "it has no room for a batch",
        ),
    ],
    ids=["model", "no reason", "all bad", "revoked", "key", "no batch API", "never any room"],
)
def test_what_no_batch_can_get_past_stops_the_run(provider: Provider, says: str) -> None:
    with serve(provider) as server, Ledger(":memory:", run="r") as ledger:
        with pytest.raises(ProviderError) as caught:
            fill(engine(server.url, ledger, batch={"at_once": 1}), EXAMPLES, ANSWERS, ledger)
        assert says in str(caught.value)
        assert caught.value.exit_code == 3
        assert ledger.counts() == {}


def test_a_cancelled_batch_stops_the_run_and_the_next_asks_for_the_rest(undisturbed: dict[Key, Generation]) -> None:
    provider = Provider(
        row=lambda line, number: None if third(line) and number == 0 else honest(line),
        end=lambda number: "completed" if number else "cancelled",
    )
    with serve(provider) as server, Ledger(":memory:", run="r") as ledger:
        with pytest.raises(ProviderError, match="was cancelled"):
            fill(engine(server.url, ledger, batch={"at_once": 1}), EXAMPLES, ANSWERS, ledger)
        assert 10 < ledger.counts()["teacher"]["ok"] < 20
        assert by_id(answer(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)) == undisturbed
    assert sum(provider.asked.values()) == TOTAL + sum(map(third, provider.lines(provider.batches["batch-0"])))


# -- what goes wrong on the way -------------------------------------------------------------------------

WAYS = {
    "500": lambda: error(500),
    "429": lambda: error(429, headers={"Retry-After": "5"}),
    "reset": lambda: Response(way="reset"),
    "html": lambda: Response(b"<html>"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lost", [False, True], ids=["before it takes effect", "after it"])
def test_a_passing_failure_of_any_call_submits_nothing_twice(
    way: str, lost: bool, undisturbed: dict[Key, Generation]
) -> None:
    """Every upload, submit and look fails once; with `lost`, only its answer."""
    seen: Counter[str] = Counter()

    def fail(call: Call) -> Response | None:
        mark = f"{call.method} {call.path}" + (call.body["input_file_id"] if call.path == "/v1/batches" else "")
        if call.path.endswith("/content") or "?" in call.path:
            return None
        seen[mark] += 1
        return WAYS[way]() if seen[mark] == 1 else None

    provider = Provider(after=fail) if lost else Provider(before=fail)
    assert run(provider) == ({"ok": TOTAL}, undisturbed)
    assert set(provider.asked.values()) == {1}
    assert len(provider.batches) == 3


def test_a_download_that_breaks_off_is_read_again(undisturbed: dict[Key, Generation]) -> None:
    broken: set[str] = set()

    def cut(call: Call) -> Response | None:
        if not call.path.endswith("/content") or call.path in broken:
            return None
        broken.add(call.path)
        return Response(provider.files[call.path.split("/")[3]], way="cut")

    provider = Provider(before=cut)
    assert run(provider) == ({"ok": TOTAL}, undisturbed)
    assert set(provider.asked.values()) == {1}


# -- money ----------------------------------------------------------------------------------------------


def test_a_batch_costs_its_share_and_the_budget_is_kept() -> None:
    """5 x 1000 + 2 x 5000 = 0.015 dollars a request at full price; half of it here."""
    price = {"input": 1000.0, "output": 5000.0, "batch": 0.5}
    with serve(Provider()) as server, Ledger(":memory:", run="r") as ledger:

        def once(usd: float) -> None:
            budget = Budget.of(BudgetSection(usd=usd), ledger)
            one = engine(server.url, ledger, price=price, budget=budget)
            fill(one, EXAMPLES, ANSWERS, ledger)

        with pytest.raises(BudgetError):
            once(0.25)
        usd, _ = spent(ledger, "r")
        done = ledger.counts()["teacher"]["ok"]
        assert usd == pytest.approx(done * 0.0075)
        assert 0.1 < usd <= 0.25
        with pytest.raises(BudgetError):
            once(usd)
        assert ledger.counts()["teacher"]["ok"] == done
        once(1000.0)
        assert spent(ledger, "r")[0] == pytest.approx(TOTAL * 0.0075)
    assert OpenAIEngine(base_url=server.url, price=PriceSection(input=1.0, output=1.0, batch=0.5)).cost(1e6, 0) == 1.0


# -- killed between submit and result -------------------------------------------------------------------


def child(path: Path, url: str, batch: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Ledger(path, run="r") as ledger:
            fill(engine(url, ledger, batch=batch), EXAMPLES, ANSWERS, ledger)
        os._exit(0)
    except Interrupted as e:
        os._exit(e.exit_code)


def start(path: Path, url: str, **batch: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=child, args=(path, url, batch))
    process.start()
    return process


def end(process: Any, number: signal.Signals) -> None:
    """Send a signal and wait until the process is gone; whoever started it still sees how."""
    os.kill(process.pid, number)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


MOMENTS = {
    "before the upload": ("before", "POST /v1/files", 0),
    "after the upload": ("after", "POST /v1/files", 0),
    "before the submit": ("before", "POST /v1/batches", 0),
    "after the submit": ("after", "POST /v1/batches", 0),
    "while it waits": ("after", "GET /v1/batches/batch-0", 1),
    "before the result": ("before", "GET /v1/files/", 0),
    "after the result": ("after", "GET /v1/files/", 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_each_step_the_same_batches_are_collected(
    moment: str, tmp_path: Path, undisturbed: dict[Key, Generation]
) -> None:
    when, what, wanted = MOMENTS[moment]
    process: Any = None
    seen = 0

    def kill(call: Call) -> Response | None:
        nonlocal seen
        if f"{call.method} {call.path}".startswith(what):
            seen += 1
            if seen == wanted + 1:
                end(process, signal.SIGKILL)
        return None

    provider = Provider(before=kill) if when == "before" else Provider(after=kill)
    path = tmp_path / "generations.sqlite"
    with serve(provider) as server:
        process = start(path, server.url)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with Ledger(path, run="r") as ledger:
            assert by_id(answer(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)) == undisturbed
    assert set(provider.asked.values()) == {1}, "a request stands in two batches"
    assert len(provider.batches) == 3


def test_killed_twenty_times_at_random_moments_nothing_is_submitted_twice(
    tmp_path: Path, undisturbed: dict[Key, Generation]
) -> None:
    draw = random.Random(5)
    goal: tuple[int, bool] = (-1, False)
    process: Any = None

    def kill(call: Call, *, after: bool) -> Response | None:
        if (call.number, after) == goal:
            end(process, signal.SIGKILL)
        return None

    provider = Provider(looks=1, before=lambda c: kill(c, after=False), after=lambda c: kill(c, after=True))
    path = tmp_path / "generations.sqlite"
    with serve(provider) as server:
        for _ in range(20):
            goal = (len(server.calls) + draw.randint(0, 4), draw.random() < 0.5)
            process = start(path, server.url, max_requests=1)
            process.join()
            assert process.exitcode == -signal.SIGKILL
        with Ledger(path, run="r") as ledger:
            assert by_id(answer(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)) == undisturbed
    assert set(provider.asked.values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_the_batches_go_on(
    number: signal.Signals, tmp_path: Path, undisturbed: dict[Key, Generation]
) -> None:
    process: Any = None
    stopped = False

    def stop(call: Call) -> Response | None:
        nonlocal stopped
        if call.path.startswith("/v1/batches/") and not stopped:
            stopped = True
            end(process, number)
        return None

    provider = Provider(before=stop)
    path = tmp_path / "generations.sqlite"
    with serve(provider) as server:
        process = start(path, server.url)
        process.join()
        assert process.exitcode == 130
        with Ledger(path, run="r") as ledger:
            assert by_id(answer(engine(server.url, ledger), EXAMPLES, ANSWERS, ledger)) == undisturbed
    assert set(provider.asked.values()) == {1}


def test_two_runs_that_share_a_ledger_collect_their_own_batches(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    with serve(Provider()) as server, Ledger(path, run="one") as one, Ledger(path, run="two") as two:
        job = Jobs(one, server.url, "teacher").begin([])
        assert Jobs(one, server.url, "teacher").open() == [job]
        assert Jobs(two, server.url, "teacher").open() == Jobs(one, "http://elsewhere/v1", "teacher").open() == []
