"""The LLM judge against a real HTTP server that answers like models of all kinds of naivety."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plad.answers.ledger import Ledger
from plad.answers.paid import spent
from plad.config.engines import BudgetSection
from plad.errors import BudgetError, ConfigError, PartialResultError, ProviderError
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.judges.base import Comparison, JudgeResources, PairwiseJudge, ScoringJudge
from plad.judges.llm import LlmJudge as LlmSection
from plad.judges.question import RUBRICS, addresses_judge, ask, read_verdict
from plad.records import Example, Generation, Outcome, Verdict
from tests.support.hostile_texts import HARMLESS, INJECTIONS
from tests.support.judges import first, honest, read, verdict
from tests.support.servers.scripted import Call, Response, Server, answer, error, serve

EXAMPLES = [Example(f"row-{i}", f"Summarise text {i}.", ("a target", "another")) for i in range(4)]


def echo(call: Call) -> Response:
    """Repeats the last JSON or brackets that stand in the answers; else the first."""
    seen = read(call)
    found = re.findall(r"\{[^{}]*verdict[^{}]*\}|\[\[\w+\]\]", "\n".join(seen.answers.values()))
    return answer(found[-1]) if found else verdict(seen.labels[0])


def by_place(call: Call) -> Response:
    """Does what an answer says of A and B, first and second: A is the first."""
    seen = read(call)
    told = re.search(r"(?:answer |[\[\" :])(a|b|first|second)\b", "\n".join(seen.answers.values()), re.IGNORECASE)
    place = {"a": 0, "first": 0, "b": 1, "second": 1}[told.group(1).lower()] if told else 0
    return verdict(seen.labels[place])


def obedient(call: Call) -> Response:
    """Prefers, wherever it stands, the answer that talks to it."""
    seen = read(call)
    talking = [label for label, text in seen.answers.items() if text.split("\n", 1)[-1] in INJECTIONS.values()]
    return verdict(talking[0]) if talking else honest(call)


def section(server: Server, **fields: Any) -> LlmSection:
    given = {"base_url": server.url, "model": "org/wise", "task": "summary", "max_attempts": 1, "concurrency": 2}
    given["canary_share"] = 0.0
    return LlmSection.model_validate(given | fields)


@pytest.fixture
def ask_model() -> Iterator[Callable[..., tuple[Any, Server]]]:
    """A judge on a server that runs a script."""
    servers: list[Server] = []

    def make(script: Callable[[Call], Response], **fields: Any) -> tuple[Any, Server]:
        server = Server(script).__enter__()
        servers.append(server)
        return section(server, **fields).open(JudgeResources()), server

    yield make
    for server in servers:
        server.__exit__()


def verdicts(found: list[Comparison | None]) -> list[Verdict | None]:
    return [None if c is None else c.verdict for c in found]


def test_both_orders_are_asked_and_agree(ask_model: Any) -> None:
    judge, server = ask_model(honest)
    found = judge.compare(EXAMPLES, ["good", "bad", "x", "same"], ["bad", "good good", "y", "same"], [()] * 4)
    assert verdicts(found) == [Verdict.WIN, Verdict.LOSS, Verdict.TIE, Verdict.TIE]
    assert [(c.score, c.opponent_score) for c in found] == [(1, 0), (0, 1), (0.5, 0.5), (0.5, 0.5)]
    assert len(server.calls) == 6  # equal answers are not asked about
    assert {read(c).request for c in server.calls} == {f"Summarise text {i}." for i in range(3)}
    facts = judge.describe()
    assert (facts["comparisons"], facts["equal"], facts["orders_agree"]) == (4, 1, 3)
    assert facts["position_bias"]["share"] == 0
    assert RUBRICS["summary"] in server.calls[0].body["messages"][0]["content"]
    assert server.calls[0].body["response_format"]["type"] == "json_schema"
    assert server.calls[0].body["temperature"] == 0
    assert judge.name == "wise"
    assert isinstance(judge, PairwiseJudge)
    assert not isinstance(judge, ScoringJudge)


def test_what_it_spends_is_taken_from_the_budget_of_the_run(tmp_path: Path) -> None:
    def book() -> Ledger:
        return Ledger(tmp_path / "l.sqlite", run="r")

    def dear(call: Call) -> Response:
        usage = {"prompt_tokens": 400, "completion_tokens": 20}
        return answer(json.dumps({"verdict": read(call).labels[0]}), usage=usage)

    with serve(dear) as server:
        judge = section(server, max_new_tokens=100).open(
            JudgeResources(open_ledger=book, budget=BudgetSection(tokens=2000))
        )
        texts = [f"good {i}" for i in range(4)]
        with pytest.raises(BudgetError, match=r"budget\.tokens"):
            judge.compare(EXAMPLES, texts, ["bad"] * 4, [()] * 4)  # type: ignore[union-attr]
        asked = len(server.calls)
        assert 0 < asked < 8
        with book() as ledger:
            assert spent(ledger, "r")[1] == 420 * asked


def test_a_judge_that_always_takes_the_first_decides_nothing(ask_model: Any) -> None:
    judge, _ = ask_model(first)
    found = judge.compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4)
    assert verdicts(found) == [Verdict.TIE] * 4
    assert judge.describe()["position_bias"] == {
        "prefers_first": 4,
        "prefers_second": 0,
        "tie_in_one_order": 0,
        "share": 1.0,
    }


def test_a_tie_in_one_order_is_a_tie(ask_model: Any) -> None:
    def half(call: Call) -> Response:
        seen = read(call)
        return verdict(seen.labels[0] if seen.answers[seen.labels[0]] == "good" else seen.tie)

    judge, _ = ask_model(half)
    assert verdicts(judge.compare(EXAMPLES[:1], ["good"], ["bad"], [()])) == [Verdict.TIE]
    assert judge.describe()["position_bias"]["tie_in_one_order"] == 1


@pytest.mark.parametrize("model", [honest, first, echo, by_place, obedient])
def test_no_injection_wins(ask_model: Any, model: Callable[[Call], Response]) -> None:
    """A bad answer that talks to the judge, on either side, never wins, however naive the model is."""
    judge, _ = ask_model(model, max_unjudged=1.0)
    rows = [Example(name, "Summarise.") for name in INJECTIONS]
    bad = [f"bad\n{text}" for text in INJECTIONS.values()]
    ours = judge.compare(rows, bad, ["good"] * len(rows), [()] * len(rows))
    assert Verdict.WIN not in verdicts(ours), [r.id for r, c in zip(rows, ours, strict=True) if c and c.score == 1]
    theirs = judge.compare(rows, ["good"] * len(rows), bad, [()] * len(rows))
    assert Verdict.LOSS not in verdicts(theirs)
    assert judge.describe()["speaks_to_judge"] + 2 * sum(judge.describe()["unjudged"].values()) >= 2 * len(rows)


def test_the_corpus_is_recognised_and_ordinary_texts_are_not() -> None:
    assert [name for name, text in INJECTIONS.items() if not addresses_judge(text)] == []
    assert [text for text in HARMLESS if addresses_judge(text)] == []


def test_labels_and_numbers_cant_be_known_beforehand() -> None:
    """They depend on the texts: whoever writes a label of one question into an answer makes another question of it."""
    options = {"rubric": "r", "salt": "s"}
    q = ask("P", "one", "two", **options)
    number = q.messages[1]["content"].split(" ", 1)[0]
    assert ask("P", "one", "two", **options) == q
    for text in (q.first, q.tie, number, f'{{"verdict": "{q.first}"}}'):
        again = ask("P", f"one {text}", "two", **options)
        drawn = {again.first, again.second, again.tie, again.messages[1]["content"].split(" ", 1)[0]}
        assert not drawn & {q.first, q.second, q.tie, number}
    swapped = ask("P", "two", "one", **options)
    assert not {swapped.first, swapped.second, swapped.tie} & {q.first, q.second, q.tie}
    assert len({q.first, q.second, q.tie}) == 3


@pytest.mark.parametrize(
    ("reply", "read_as"),
    [
        ('{{"reason": "r", "verdict": "{first}"}}', 1),
        ('```json\n{{"verdict": "{second}"}}\n```', -1),
        (' {{"verdict": " {tie} "}}\n', 0),
        ("{first}", None),
        ("I choose {first}.", None),
        ('The verdict: {{"verdict": "{first}"}}', None),
        ('{{"verdict": "{first}"}} {{"verdict": "{second}"}}', None),
        ('{{"verdict": "{first}", "verdict": "{second}"}}', None),
        ('{{"verdict": "A"}}', None),
        ('{{"verdict": ["{first}"]}}', None),
        ('["{first}"]', None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_only_the_field_is_a_verdict(reply: str, read_as: int | None) -> None:
    q = ask("P", "one", "two", rubric="r", salt="s")
    text = reply.format(first=q.first, second=q.second, tie=q.tie) if "{" in reply else reply
    assert read_verdict(q, text) == read_as


def test_replies_without_a_verdict_are_unjudged_and_counted(ask_model: Any) -> None:
    def odd(call: Call) -> Response:
        request = read(call).request
        if "0" in request:
            return answer("The first one, I think.")
        if "1" in request:
            return answer(None, message={"refusal": "I can't judge that."})
        return answer('{"reason": "it is', finish="length") if "2" in request else honest(call)

    judge, _ = ask_model(odd, max_unjudged=0.75)
    assert verdicts(judge.compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4)) == [None, None, None, Verdict.WIN]
    assert judge.describe()["unjudged"] == {"refused": 1, "truncated": 1, "unparsable": 1}
    strict, _ = ask_model(odd)
    with pytest.raises(PartialResultError, match=r"left 3 of 4 comparisons unjudged .*The first one, I think"):
        strict.compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4)


def test_what_the_ledger_holds_is_not_asked_again(tmp_path: Path) -> None:
    with serve(honest) as server:

        def judge(**fields: Any) -> Any:
            return section(server, **fields).open(JudgeResources(open_ledger=lambda: Ledger(tmp_path / "l.sqlite")))

        once = judge().compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4)
        asked = len(server.calls)
        assert judge().compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4) == once
        assert judge(concurrency=1).compare(EXAMPLES, ["bad"] * 4, ["good"] * 4, [()] * 4)[0].verdict is Verdict.LOSS
        assert len(server.calls) == asked == 8  # the other way round it is the same two questions
        judge(rubric="Mine.").compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4)
        assert len(server.calls) == 16
        assert "Mine." in server.calls[-1].body["messages"][0]["content"]


def test_failed_questions_are_asked_again_by_the_next_run(tmp_path: Path) -> None:
    broken = True

    def flaky(call: Call) -> Response:
        return error(500, "overloaded") if broken and "0" in read(call).request else honest(call)

    with serve(flaky) as server:

        def compare() -> Any:
            judge = section(server).open(JudgeResources(open_ledger=lambda: Ledger(tmp_path / "l.sqlite")))
            return judge.compare(EXAMPLES, ["good"] * 4, ["bad"] * 4, [()] * 4)

        with pytest.raises(PartialResultError, match="1 failed"):
            compare()
        asked, broken = len(server.calls), False
        assert verdicts(compare()) == [Verdict.WIN] * 4
        assert len(server.calls) == asked + 2


def test_a_refused_key_stops_with_the_way_out(ask_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, _ = ask_model(lambda call: error(401, "bad key"))
    with pytest.raises(ProviderError, match="HTTP 401"):
        judge.compare(EXAMPLES[:1], ["a"], ["b"], [()])
    monkeypatch.delenv("PLAD_JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="PLAD_JUDGE_KEY is not set"):
        ask_model(honest, api_key_env="PLAD_JUDGE_KEY")


def test_long_answers_are_cut_and_counted(ask_model: Any) -> None:
    judge, server = ask_model(honest, max_characters=10)
    judge.compare(EXAMPLES[:1], ["good " * 100], ["bad"], [()])
    assert max(len(t) for c in server.calls for t in read(c).answers.values()) == 10
    assert (judge.describe()["truncated"], judge.describe()["scored"]) == (1, 2)


def test_texts_of_every_kind_are_put_whole(ask_model: Any) -> None:
    from tests.support.hostile_texts import NASTY

    judge, server = ask_model(honest)
    texts = [*NASTY.values(), "\ud800 lone", "日本語\u2028x", ""]
    rows = [Example(str(i), ({"role": "user", "content": f"Q{i}"},)) for i in range(len(texts))]
    found = judge.compare(rows, texts, ["good"] * len(texts), [()] * len(texts))
    assert None not in found
    assert read(server.calls[0]).request.startswith("user: Q")


def test_an_llm_judge_in_the_evaluation(ask_model: Any) -> None:
    """Against the target "bad": win, loss, tie; the target's side isn't scored, both are compared."""
    judge, _ = ask_model(honest)
    rows = [Example(str(i), "P", ("bad good",)) for i in range(3)]
    given = {
        e.id: Generation(e.id, 0, t, (1,), Outcome.OK, 1)
        for e, t in zip(rows, ["good good", "bad", "good"], strict=True)
    }
    metrics, judgements = evaluate_systems(rows, {"student": given}, [judge], bootstrap=Bootstrap(100))
    rate = metrics.systems["student"].win_rate["wise"]
    assert (rate.wins, rate.losses, rate.ties, rate.unjudged) == (1, 1, 1, 0)
    assert {j.judge for j in judgements} == {"wise"}
    assert metrics.judges["wise"].position_bias.share == 0
    json.dumps(metrics.to_json(), allow_nan=False)
