"""A budget is never passed, whatever is in flight; what was spent counts across sessions."""

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plad.answers.fill import fill
from plad.answers.jobs import Jobs
from plad.answers.ledger import Ledger
from plad.answers.paid import spent
from plad.answers.question import AnswerSet, Sampling
from plad.config.engines import BudgetSection, PriceSection
from plad.config.models import PromptSection
from plad.errors import BudgetError
from plad.judges.base import JudgeResources, PairwiseJudge
from plad.judges.llm import LlmJudge
from plad.records import Example
from plad.remote.budget import Budget
from plad.remote.openai import OpenAI, OpenAIEngine
from tests.support.judges import read
from tests.support.servers.batch_provider import Provider, Row, answered
from tests.support.servers.scripted import Call, FakeClock, Response, answer, error, serve

EXAMPLES = [Example(f"id {i}", f"question {i:02} " * 2) for i in range(60)]  # all may cost the same
ANSWERS = AnswerSet("teacher", "w", Sampling(0.7, 40), 0)
PRICE = PriceSection(input=1000.0, output=5000.0)


def honest(call: Call) -> Response:
    """As many tokens as a server could count: a prompt's bytes, and all that was allowed, or fewer."""
    out = random.Random(call.raw).randint(1, 40)
    usage = {"prompt_tokens": len(call.prompt.encode()) // 3 + 5, "completion_tokens": out}
    return answer("text", usage=usage)


def run(url: str, ledger: Ledger, section: BudgetSection, **settings: Any) -> dict[str, int]:
    engine = OpenAI(
        OpenAIEngine(base_url=url, price=PRICE, **{"concurrency": 8, **settings}),
        "big",
        PromptSection(),
        budget=Budget.of(section, ledger),
        clock=FakeClock(),
    )
    return fill(engine, EXAMPLES, ANSWERS, ledger)


def ledger() -> Ledger:
    return Ledger(":memory:", run="r")


@pytest.mark.parametrize("section", [BudgetSection(usd=2.0), BudgetSection(tokens=1000)])
def test_it_stops_before_the_budget_is_passed_and_goes_on_once_it_is_raised(section: BudgetSection) -> None:
    with serve(honest) as server, ledger() as book:
        with pytest.raises(BudgetError) as caught:
            run(server.url, book, section)
        assert caught.value.exit_code == 4
        assert "same command continues" in str(caught.value)
        usd, tokens = spent(book, "r")
        done = len(server.calls)
        assert 5 < done < len(EXAMPLES)
        if section.usd is not None:
            assert section.usd - 0.5 < usd <= section.usd
        if section.tokens is not None:
            assert section.tokens - 200 < tokens <= section.tokens
        assert sum(book.counts()["teacher"].values()) == done, "every answer that was paid for is kept"
        with pytest.raises(BudgetError):
            run(server.url, book, section)
        assert len(server.calls) == done, "earlier sessions count"
        assert run(server.url, book, BudgetSection(usd=1000.0)) == {"ok": len(EXAMPLES)}
        assert len(server.calls) == len(EXAMPLES)


def test_what_other_runs_spent_does_not_count() -> None:
    with serve(honest) as server, Ledger(":memory:", run="other") as book:
        run(server.url, book, BudgetSection())
        assert spent(book, "r") == (0.0, 0)
        assert spent(book, "other")[0] > 2


def test_a_budget_for_the_last_request_is_used() -> None:
    """Requests that wait for a place in the budget are sent as soon as others turn out cheaper."""
    with serve(honest) as server, ledger() as book:
        run(server.url, book, BudgetSection())
        usd, _ = spent(book, "r")
    with serve(honest) as server, ledger() as book:
        assert run(server.url, book, BudgetSection(usd=usd + 0.5), concurrency=16) == {"ok": len(EXAMPLES)}


def test_requests_that_fail_give_back_what_was_set_aside() -> None:
    def script(call: Call) -> Response:
        return error(400) if call.number % 2 else honest(call)

    with serve(script) as server, ledger() as book:
        counts = run(server.url, book, BudgetSection(usd=6.0), concurrency=1)
    assert counts["ok"] == counts["bad_request"] == 30


def test_without_a_budget_nothing_is_set_aside() -> None:
    budget = Budget()
    with serve(honest) as server, ledger() as book:
        fill(
            OpenAI(OpenAIEngine(base_url=server.url), "big", PromptSection(), budget=budget),
            EXAMPLES,
            ANSWERS,
            book,
        )
    assert not budget.waiting
    assert budget.spent_tokens > 0


def test_a_judge_keeps_to_the_runs_budget_and_goes_on_once_it_is_raised(tmp_path: Path) -> None:
    """A verdict takes 510 tokens; its question's bytes are what is set aside."""
    usage = {"prompt_tokens": 500, "completion_tokens": 10}
    given = {"max_new_tokens": 40, "concurrency": 2, "price": PRICE, "canary_share": 0.0}
    section = LlmJudge(type="llm", model="wise", base_url="http://h/v1", **given)
    texts = [f"text {i}" for i in range(10)]
    rows = EXAMPLES[:10]

    def judge(url: str, budget: BudgetSection) -> list[Any]:
        at = section.model_copy(update={"base_url": url})
        loaded = at.open(JudgeResources(open_ledger=lambda: Ledger(tmp_path / "ledger.sqlite", run="r"), budget=budget))
        assert isinstance(loaded, PairwiseJudge)
        return loaded.compare(rows, texts, ["other"] * 10, [()] * 10)

    def tie(call: Call) -> Response:
        return answer(json.dumps({"reason": "", "verdict": read(call).tie}), model="wise", usage=usage)

    with serve(tie) as server:
        with pytest.raises(BudgetError):
            judge(server.url, BudgetSection(tokens=6000))
        done = len(server.calls)
        assert 2 < done < 20
        with pytest.raises(BudgetError):
            judge(server.url, BudgetSection(tokens=510 * done))
        assert len(server.calls) == done, "earlier sessions count"
        assert all(judge(server.url, BudgetSection(usd=100.0)))
        assert len(server.calls) == 20


def bills(tokens: int, *, after: int = 0) -> Any:
    """A server that bills an answer at so many tokens, once it has answered so many."""

    def script(call: Call) -> Response:
        return (
            honest(call)
            if call.number < after
            else answer("x", usage={"prompt_tokens": 8, "completion_tokens": tokens})
        )

    return script


@pytest.mark.parametrize("section", [BudgetSection(tokens=20_000), BudgetSection(usd=100.0)])
def test_a_server_that_bills_more_than_was_asked_for_passes_no_budget(section: BudgetSection) -> None:
    """Sixty-four at once, 6,000 tokens where 40 were asked for: all of them together cost 18 budgets."""
    with serve(bills(6000)) as server, ledger() as book:
        with pytest.raises(BudgetError) as caught:
            run(server.url, book, section, concurrency=64)
        usd, tokens = spent(book, "r")
        assert len(server.calls) == sum(book.counts()["teacher"].values()) == 3
    assert tokens <= (section.tokens or tokens)
    assert usd <= (section.usd or usd)
    assert caught.value.exit_code == 4
    assert "one more may" in str(caught.value)


def test_the_first_bill_may_pass_a_budget_and_nothing_is_sent_after_it() -> None:
    with serve(bills(6000)) as server, ledger() as book:
        with pytest.raises(
            BudgetError, match="6,008 tokens were billed for one request, and 1,000 set aside"
        ) as caught:
            run(server.url, book, BudgetSection(tokens=1000), concurrency=64)
        assert len(server.calls) == sum(book.counts()["teacher"].values()) == 1
    assert "longest_answer" in str(caught.value)


def test_until_it_has_shown_what_it_bills_only_so_many_are_sent_as_could_be_paid() -> None:
    """Each may cost 1,000 tokens and its prompt: four fit at once, and all once twenty replies were as asked."""
    lock, going, most = threading.Lock(), set[int](), {"early": 0, "late": 0}

    def script(call: Call) -> Response:
        when = "early" if call.number < 20 else "late"
        with lock:
            going.add(call.number)
            most[when] = max(most[when], len(going))
        time.sleep(0.05)
        with lock:
            going.remove(call.number)
        return honest(call)

    with serve(script) as server, ledger() as book:
        section = BudgetSection(tokens=4_800)
        assert run(server.url, book, section, concurrency=32, longest_answer=1000) == {"ok": len(EXAMPLES)}
    assert most["early"] <= 4
    assert most["late"] > 8


def test_a_server_that_begins_to_bill_more_is_found_out_by_its_first_bill() -> None:
    with serve(bills(6000, after=30)) as server, ledger() as book:
        with pytest.raises(BudgetError, match="6,008 tokens were billed"):
            run(server.url, book, BudgetSection(tokens=1_000_000), concurrency=4)
        done = len(server.calls)
        assert 31 <= done <= 30 + 2 * 4, "what was in flight, and nothing after it"
        assert sum(book.counts()["teacher"].values()) == done, "every answer that was paid for is kept"


def test_a_batch_of_a_server_that_bills_more_passes_no_budget() -> None:
    def row(line: Row, _: int) -> Row:
        return answered(line, "x", usage={"prompt_tokens": 8, "completion_tokens": 6000})

    with serve(Provider(row)) as server, ledger() as book:
        section = OpenAIEngine(base_url=server.url, mode="batch")
        engine = OpenAI(
            section,
            "big",
            PromptSection(),
            budget=Budget.of(BudgetSection(tokens=20_000), book),
            clock=FakeClock(),
            jobs=Jobs(book, server.url, "teacher"),
        )
        with pytest.raises(BudgetError):
            fill(engine, EXAMPLES, ANSWERS, book)
        assert spent(book, "r")[1] == 3 * 6008
