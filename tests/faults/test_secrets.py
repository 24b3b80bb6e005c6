"""A key that a provider repeats, or that a config holds: it stands in no file, no log and no message."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plad.answers.fill import answer, fill
from plad.answers.jobs import Jobs
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.config.engines import Endpoint
from plad.config.file import load_config
from plad.config.models import PromptSection
from plad.errors import ConfigError, ProviderError
from plad.records import Example
from plad.remote.openai import OpenAI, OpenAIEngine, probe
from plad.text import conceal, hide, redact
from tests.support.servers.batch_provider import Provider, answered
from tests.support.servers.scripted import FakeClock, Response, error, serve
from tests.support.servers.scripted import answer as reply_with

KEY = "sk-proj-Qx7vR2mT9zLw4NbK8sHd"
EXAMPLES = [Example(f"id {i}", f"question {i}") for i in range(3)]
ANSWERS = AnswerSet("teacher", "w", Sampling(0.7, 8), 0)
SPELT = {
    "as it is": KEY,
    "in a sentence": f"your key is {KEY}.",
    "upper case": KEY.upper(),
    "spaced": " ".join(KEY),
    "lines": "\n".join(KEY),
    "zero-width": "\u200b".join(KEY),
    "reversed": KEY[::-1],
    "reversed and spaced": " ".join(KEY[::-1]),
    "twice": f"{KEY} {KEY[::-1]}",
}
SPLIT = {**SPELT, "halves": f"first {KEY[:14]} then {KEY[14:]}", "no end": KEY[:-4], "backward halves": KEY[::-1][:14]}


def bare(text: object) -> str:
    return re.sub("[^a-z0-9]", "", str(text).lower())


def holds_the_key(text: object, *, least: int | None = None) -> bool:
    key = bare(KEY)
    n = least or len(key)
    return any(key[i : i + n] in s for i in range(len(key) - n + 1) for s in (bare(text), bare(text)[::-1]))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setattr("plad.text._HIDDEN", set())
    assert all(holds_the_key(text) for text in SPELT.values())


def section(url: str, **settings: Any) -> OpenAIEngine:
    return OpenAIEngine.model_validate({"base_url": url, "api_key_env": "MY_KEY", "max_attempts": 1, **settings})


@pytest.mark.parametrize("spelt", SPELT)
@pytest.mark.parametrize("place", ["text", "model", "refusal", "error", "error 500"])
def test_a_key_that_a_reply_repeats_is_not_recorded_and_the_row_says_so(
    spelt: str, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = SPELT[spelt]
    response = {
        "text": reply_with(f"before {said} after"),
        "model": reply_with("hello", model=said),
        "refusal": reply_with(None, message={"refusal": said}),
        "error": error(400, said),
        "error 500": error(500, said),
    }[place]
    path = tmp_path / "generations.sqlite"
    with serve(lambda call: response if call.number else reply_with()) as server, Ledger(path) as ledger:
        engine = OpenAI(section(server.url, concurrency=1), "big", PromptSection(), clock=FakeClock())
        given = answer(engine, EXAMPLES, ANSWERS, ledger)
        rows = list(ledger.table())
    assert not any(holds_the_key(value) for row in rows for value in row.values())
    assert not holds_the_key(given)
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert all("[redacted]" in str(row) or "redacted" in str(row["message"]) for row in rows[1:])
    assert rows[0]["message"] is None, "an honest reply is left alone"
    if place == "text":
        assert rows[1]["text"].startswith("before ")
        assert rows[1]["text"].endswith(" after")
        assert rows[1]["message"] == "the reply repeated an API key, which is redacted"
    assert not holds_the_key(redact(caplog.text), least=8)


@pytest.mark.parametrize("spelt", SPLIT)
def test_a_key_in_a_log_line_is_redacted_also_reversed_and_split(spelt: str) -> None:
    hide(KEY)
    shown = redact(f"2026-11-24 WARNING HTTP 500: {SPLIT[spelt]} (sic)")
    assert not holds_the_key(shown, least=8)
    assert shown.startswith("2026-11-24 WARNING HTTP 500: ")
    assert shown.endswith("(sic)")


def test_words_and_short_keys_change_no_answer() -> None:
    """A local server's key is often a word, or nothing but a placeholder."""
    for key in ("none", "EMPTY", "test", "token", "not-needed", "placeholder", "lm-studio", "password", "12345678"):
        hide(key)
    hide(KEY)
    text = "There is none; the token is empty, a test of risk-averse project managers 0123456789."
    text += " Surgery was not needed. The password is a placeholder. Count: 1, 2, 3, 4, 5, 6, 7, 8. LM Studio."
    assert conceal(text) == text


def in_batches(url: str, ledger: Ledger) -> OpenAI:
    jobs = Jobs(ledger, url, "teacher")
    return OpenAI(section(url, mode="batch"), "big", PromptSection(), clock=FakeClock(), jobs=jobs)


def test_a_batch_whose_name_is_the_key_is_refused(tmp_path: Path) -> None:
    provider = Provider(
        after=lambda call: Response(f'{{"id": "{KEY}"}}'.encode()) if call.path.endswith("files") else None
    )
    with serve(provider) as server, Ledger(tmp_path / "generations.sqlite", run="r") as ledger:
        engine = in_batches(server.url, ledger)
        with pytest.raises(ProviderError) as caught:
            fill(engine, EXAMPLES, ANSWERS, ledger)
        assert not holds_the_key(caught.value)
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_a_row_of_a_batch_is_redacted_too() -> None:
    provider = Provider(lambda line, _: answered(line, f"it is {KEY[::-1]}"))
    with serve(provider) as server, Ledger(":memory:", run="r") as ledger:
        engine = in_batches(server.url, ledger)
        given = answer(engine, EXAMPLES, ANSWERS, ledger)
    assert {g.text for g in given} == {"it is [redacted]"}


def test_what_validate_shows_of_a_server_is_redacted() -> None:
    with serve(lambda _: reply_with("hello", model=KEY[::-1])) as server:
        engine = OpenAI(section(server.url), "big", PromptSection())
        question = next(ANSWERS.questions(EXAMPLES[0], engine.encode(EXAMPLES[0]), {}))
        assert probe(engine, question, ANSWERS.sampling)[0].model == "[redacted]"


# -- in a config ----------------------------------------------------------------------------------------

CONFIG = """\
run: {{dir: r}}
data: {{train: t.jsonl, test: u.jsonl}}
student: {{model: small}}
teacher:
  model: big
  engine:
    type: openai
    base_url: http://127.0.0.1:1/v1
    {place}:
      top_p: 0.9
      {field}
"""
FIELDS = {
    "api_key: x": "api_key",
    "API_KEY: x": "API_KEY",
    "apiKey: x": "apiKey",
    "apikey: x": "apikey",
    "X-Api-Key: x": "X-Api-Key",
    "token: x": "token",
    "Token: 5": "Token",
    "access_token: [x]": "access_token",
    "authToken: x": "authToken",
    "Authorization: x": "Authorization",
    "AUTHORIZATION: {value: x}": "AUTHORIZATION",
    "client_secret: x": "client_secret",
    "Secret: x": "Secret",
    "password: x": "password",
    "extra: {deeper: [{api-key: x}]}": "extra.deeper.0.api-key",
    f"user: {KEY}": "user",
    "anything: Bearer abc": "anything",
}


def complaint(text: str, tmp_path: Path, *overrides: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("field", FIELDS)
def test_a_config_that_holds_a_key_is_refused_with_the_line_and_the_way_out(field: str, tmp_path: Path) -> None:
    said = complaint(CONFIG.format(place="body", field=field), tmp_path)
    head = f"c.yaml:11: teacher.engine.body.{FIELDS[field]}: holds a key, which would be written into the run"
    assert said.startswith(f"{tmp_path}/{head}")
    assert "NAME into api_key_env" in said
    assert "sk-" not in said
    with pytest.raises(ValueError, match="holds a key"):
        Endpoint(base_url="http://h", body=yaml.safe_load(field))


def test_a_key_in_headers_in_an_override_or_for_a_judge_is_refused(tmp_path: Path) -> None:
    headers = complaint(CONFIG.format(place="headers", field="Authorization: x"), tmp_path)
    assert "c.yaml:9: teacher.engine.headers: unknown key" in headers
    assert "api_key_env" in headers
    good = CONFIG.format(place="body", field="n: 1")
    override = complaint(good, tmp_path, "teacher.engine.body.api_key=x")
    assert override.startswith("teacher.engine.body.api_key: holds a key")
    judge = "evaluate: {judges: [{type: llm, base_url: http://h/v1, model: m, body: {secret: x}}]}\n"
    assert "c.yaml:12: evaluate.judges.0.body.secret: holds a key" in complaint(good + judge, tmp_path)


def test_fields_that_merely_speak_of_tokens_and_keys_are_allowed() -> None:
    schema = {"type": "object", "properties": {"token": {"type": "string"}, "secret": {"type": "string"}}}
    body = {
        **{"max_tokens": 5, "stop_token_ids": [1], "eos_token": "</s>", "skip_special_tokens": True, "api_key": None},
        **{"prompt_cache_key": "x", "response_format": {"json_schema": {"schema": schema}}, "n": "the bearer of news"},
        **{"logit_bias": {"50256": -100}, "metadata": {"task": "task-summaries"}, "min_tokens": 1},
    }
    assert Endpoint(base_url="http://h", body=body).body == body
