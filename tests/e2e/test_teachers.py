"""The whole of PLaD with a teacher that is not a model in this process: behind an endpoint, or in a file."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset

from tests.support.command import call
from tests.support.servers.batch_provider import Provider, answered
from tests.support.servers.scripted import Call, Response, Server, answer, as_json, error, serve
from tests.support.task import rows, write_answers, write_task

CANARY = "canary-0123456789abcdef"
CALIBRATION = 6 * 2  # further answers of the fine-tuned student on the test prompts
TARGETS = {row["prompt"]: row["references"][0] for split in ("train", "validation", "test") for row in rows(split, 24)}


def teach(call_: Call) -> Response:
    """The target, now and then with a word more."""
    more = hashlib.sha256(call_.raw).hexdigest()[0] in "0123"
    return answer(TARGETS[call_.prompt] + " indeed" * more, model="large-2026")


def write(folder: Path, teacher: dict[str, Any], **changes: Any) -> Path:
    path = write_task(folder, **{"sft__epochs": 2, "distill__validation": {"evaluations": 0}, **changes})
    config = yaml.safe_load(path.read_text())
    config["teacher"] = teacher
    path.write_text(yaml.safe_dump(config))
    return path


def behind(server: Server, **engine: Any) -> dict[str, Any]:
    return {"model": "big", "engine": {"type": "openai", "base_url": server.url, **engine}}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with a teacher behind an endpoint, and the server."""
    folder = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch, serve(teach) as server:
        patch.setenv("PLAD_TEST_KEY", CANARY)
        price = {"input": 1.0, "output": 2.0}
        config = write(folder, behind(server, api_key_env="PLAD_TEST_KEY", concurrency=4, price=price))
        code, out, err = call("run", config)
        assert code == 0, out + err
        yield config, server


def test_a_run_with_a_teacher_behind_an_endpoint_is_whole(taught: tuple[Path, Server]) -> None:
    run = taught[0].parent / "run"
    assert not (run / "sft/teacher").exists()
    metrics = json.loads((run / "eval/metrics.json").read_text())
    assert set(metrics["systems"]) == {"target", "teacher", "student_sft", "student"}
    assert metrics["systems"]["teacher"]["rougeL"]["value"] > 0.8
    assert metrics["warnings"][0] == "18 answers of the teacher were served by large-2026, not by big"
    counts = json.loads((run / "manifest.json").read_text())["stages"]["generate"]["counts"]
    assert counts["teacher"] == {"ok": 12}
    assert (run / "report/index.html").is_file()
    assert "big" in (run / "student/README.md").read_text()


def test_each_prompt_was_asked_for_once_and_again_nothing_is(taught: tuple[Path, Server]) -> None:
    config, server = taught
    assert len(server.calls) == 12 + 6
    code, _, err = call("run", config, "--clean", "generate")
    assert code == 0, err
    assert len(server.calls) == 12 + 6


@pytest.mark.parametrize(
    ("override", "stage", "change"),
    [
        ("generate.temperature=0.9", "generate", "generate.temperature 0.7 -> 0.9"),
        ("generate.max_new_tokens=20", "generate", "generate.max_new_tokens 24 -> 20"),
        ("generate.samples=2", "generate", "generate.samples 1 -> 2"),
        ("teacher.model=bigger", "generate", 'teacher.model "big" -> "bigger"'),
        ("teacher.revision=2026-11", "generate", 'teacher.revision null -> "2026-11"'),
        ("teacher.prompt.system=be brief", "generate", 'teacher.prompt.system null -> "be brief"'),
        ("teacher.engine.base_url=http://127.0.0.1:9/v1", "generate", "teacher.engine.base_url"),
        ("teacher.engine.body={top_p: 0.9}", "generate", "teacher.engine.body.top_p null -> 0.9"),
        ("run.seed=5", "data", "run.seed 1 -> 5"),
        ("distill.learning_rate=0.5", "distill", "distill.learning_rate 0.001 -> 0.5"),
    ],
)
def test_a_changed_setting_is_refused_with_old_and_new_value(
    override: str, stage: str, change: str, taught: tuple[Path, Server]
) -> None:
    config, server = taught
    before = len(server.calls)
    code, _, err = call("run", config, override)
    assert code == 2
    assert f"stage {stage} was made with other settings: {change}" in err
    assert f"--clean {stage}" in err
    assert "run.dir=NEW" in err
    assert len(server.calls) == before


@pytest.mark.parametrize(
    "override",
    [
        "teacher.engine.concurrency=2",
        "teacher.engine.timeout_s=9",
        "teacher.engine.rpm=100",
        "teacher.engine.mode=batch",
        "teacher.engine.price=null",
        "generate.slots=2",
        "generate.max_failed=0.5",
        "budget.tokens=1000000",
    ],
)
def test_pace_price_and_memory_may_be_changed(override: str, taught: tuple[Path, Server]) -> None:
    config, server = taught
    before = len(server.calls)
    code, _, err = call("run", config, override)
    assert code == 0, err
    assert len(server.calls) == before


def test_the_key_stands_in_no_file_of_the_run(taught: tuple[Path, Server]) -> None:
    assert taught[1].calls[0].headers["Authorization"] == f"Bearer {CANARY}"
    files = [p for p in taught[0].parent.rglob("*") if p.is_file()]
    assert len(files) > 20
    for file in files:
        assert CANARY.encode() not in file.read_bytes(), file


def test_the_ledger_shows_outcomes_tokens_cost_and_who_served(taught: tuple[Path, Server], tmp_path: Path) -> None:
    run = taught[0].parent / "run"
    code, out, err = call("ledger", run, "--json")
    assert code == 0, err
    found = json.loads(out)
    systems = {s["system"]: s for s in found["systems"]}
    teacher = systems["teacher"]
    assert (teacher["engine"], teacher["outcomes"], teacher["models"]) == ("openai", {"ok": 18}, {"large-2026": 18})
    assert (teacher["prompt_tokens"], teacher["completion_tokens"], teacher["attempts"]) == (90, 36, 18)
    assert teacher["usd"] == pytest.approx((90 * 1 + 36 * 2) / 1e6)
    assert systems["student_sft"]["usd"] is None
    assert systems["student_sft"]["answers"] == 18 + CALIBRATION
    code, out, _ = call("ledger", run)
    assert "90 + 36" in out
    assert "teacher was served by: large-2026 18" in out
    code, out, err = call("ledger", run, "--export", tmp_path / "answers.parquet")
    assert code == 0, err
    table = load_dataset("parquet", data_files=str(tmp_path / "answers.parquet"), split="train")
    assert len(table) == found["answers_in_ledger"] == 18 * 2 + 6 + CALIBRATION
    row = next(r for r in table if r["system"] == "teacher" and r["prompt"] in TARGETS)
    assert row["text"].startswith(TARGETS[row["prompt"]])
    assert CANARY not in row["spec"]
    assert call("ledger", run, "--export", tmp_path / "answers.parquet")[0] == 2


def test_two_runs_share_a_ledger_and_each_shows_its_own(tmp_path: Path) -> None:
    with serve(teach) as server:
        changes = {"generate__ledger": str(tmp_path / "shared.sqlite")}
        one = write(tmp_path / "one", behind(server), **changes)
        two = write(tmp_path / "two", behind(server), **changes, distill__learning_rate=1e-4)
        for config in (one, two):
            code, out, err = call("run", config, "--to", "pair")
            assert code == 0, out + err
        assert len(server.calls) == 12
    shown = [json.loads(call("ledger", tmp_path / name / "run", "--json")[1]) for name in ("one", "two")]
    assert [s["answers_in_ledger"] for s in shown] == [24, 24]
    assert [sum(s["answers"] for s in found["systems"]) for found in shown] == [24, 0]
    assert call("status", tmp_path / "two/run")[0] == 0
    assert call("show", tmp_path / "two/run", "generations")[0] == 0


def test_a_budget_stops_a_run_which_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    with serve(teach) as server:
        price = {"input": 1.0, "output": 2.0}
        config = write(tmp_path, behind(server, price=price, concurrency=2))
        code, _, err = call("run", config, "--to", "generate", "budget.tokens=220")
        assert code == 4
        assert "stopped before the budget is passed (budget.tokens 220: " in err
        sent = len(server.calls)
        assert 0 < sent < 12
        code, _, err = call("run", config, "--to", "generate", "budget.usd=1")
        assert (code, len(server.calls)) == (0, 12), err
        code, _, err = call("run", config, "teacher.engine.price=null", "budget.usd=1")
        assert code == 2
        assert "budget.usd needs teacher.engine.price" in err


def test_another_endpoint_is_another_run_and_another_pace_is_not(taught: tuple[Path, Server]) -> None:
    config, _ = taught
    code, _, err = call("run", config, "teacher.engine.base_url=http://elsewhere/v1")
    assert code == 2
    assert "stage generate was made with other settings" in err
    assert "--clean generate" in err
    assert call("run", config, "teacher.engine.concurrency=2", "teacher.engine.timeout_s=9")[0] == 0


def test_a_run_with_a_teacher_in_batches_survives_a_stop_and_submits_nothing_twice(tmp_path: Path) -> None:
    """The first run is told by its key that it may not look at the batch; the second collects it."""

    def look(call_: Call) -> Response | None:
        return error(403, "not now") if call_.path.startswith("/v1/batches/") and not allowed else None

    provider = Provider(
        row=lambda line, _: answered(line, TARGETS[line["body"]["messages"][0]["content"]]), before=look
    )
    allowed = False
    batch = {"poll_s": 0.01, "max_requests": 8}
    with serve(provider) as server:
        config = write(
            tmp_path, behind(server, mode="batch", batch=batch, price={"input": 1, "output": 2, "batch": 0.5})
        )
        code, out, err = call("validate", config)
        assert code == 0, err
        assert "api chat, in batches" in out
        code, out, _ = call("plan", config)
        assert "18 requests in 3 batches, each within 24h" in out
        code, _, err = call("run", config)
        assert code == 3
        assert "not now" in err
        assert len(provider.batches) == 2
        allowed = True
        code, out, err = call("run", config)
        assert code == 0, out + err
    assert set(provider.asked.values()) == {1}
    assert sum(provider.asked.values()) == 18
    teacher = json.loads(call("ledger", tmp_path / "run", "--json")[1])["systems"][-1]
    assert (teacher["system"], teacher["outcomes"]) == ("teacher", {"ok": 18})
    assert teacher["usd"] == pytest.approx(18 * (5 + 2 * 2) / 2 / 1e6)


def test_a_refused_key_is_exit_code_3_and_a_budget_or_too_many_failures_are_4(tmp_path: Path) -> None:
    def script(call_: Call) -> Response:
        if not allowed:
            return error(401, "who are you?")
        return error(422, "not this one") if call_.prompt == worst else teach(call_)

    allowed = False
    worst = ""
    with serve(script) as server:
        config = write(tmp_path, behind(server))
        code, _, err = call("run", config, "--to", "generate")
        assert (code, len(server.calls) <= 16) == (3, True)
        assert "who are you?" in err
        assert "api_key_env" in err
        allowed, asked = True, len(server.calls)
        code, _, err = call("run", config, "--to", "generate", "budget.tokens=220")
        assert code == 4
        assert "stopped before the budget is passed (budget.tokens 220" in err
        assert "the same command continues" in err
        assert 0 < len(server.calls) - asked < 12
        answered_ = {c.prompt for c in server.calls[asked:]}
        lines = (tmp_path / "run/data/distill.jsonl").read_text().splitlines()
        worst = next(prompt for line in lines if (prompt := json.loads(line)["prompt"]) not in answered_)
        code, _, err = call("run", config, "--to", "generate")
        assert code == 4
        assert "1 of 12 answers of teacher are missing (1 bad_request); most often: HTTP 422: not this one" in err
        assert "generate.max_failed=0.01" in err
        shown = " ".join(call("status", tmp_path / "run")[1].split())
        assert "generate failed" in shown
        assert "1 of 12 answers of teacher are missing" in shown
        sent = len(server.calls)
        code, _, err = call("run", config, "--to", "pair", "generate.max_failed=0.1")
        assert (code, len(server.calls)) == (0, sent), err
        assert "failed at" not in call("status", tmp_path / "run")[1]


def test_a_key_that_isnt_set_is_found_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLAD_TEST_KEY", raising=False)
    with serve(teach) as server:
        config = write(tmp_path, behind(server, api_key_env="PLAD_TEST_KEY"))
        code, _, err = call("run", config)
    assert code == 2
    assert "PLAD_TEST_KEY is not set" in err
    assert not (tmp_path / "run/sft").exists()


def test_a_file_without_answers_to_the_test_rows_teaches_and_is_left_out_of_the_evaluation(tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.jsonl", ("train",))
    config = write(tmp_path, {"model": "somebody", "engine": {"type": "file", "path": "answers.jsonl"}})
    code, out, err = call("run", config)
    assert code == 0, out + err
    metrics = json.loads((tmp_path / "run/eval/metrics.json").read_text())
    assert set(metrics["systems"]) == {"target", "student_sft", "student"}
    assert metrics["warnings"][0] == "teacher is left out: 6 of 6 prompts have no answer in answers.jsonl"
    assert metrics["teacher_student_win_rate"]["reference"]["n"] == 12
    report = (tmp_path / "run/report/report.md").read_text()
    assert "teacher is left out" in report


def test_a_file_with_answers_to_all_rows_is_evaluated_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.jsonl", ("train", "test"))
    config = write(tmp_path, {"model": "somebody", "engine": {"type": "file", "path": "answers.jsonl"}})
    code, out, err = call("run", config)
    assert code == 0, out + err
    metrics = json.loads((tmp_path / "run/eval/metrics.json").read_text())
    assert metrics["systems"]["teacher"]["rougeL"]["value"] > 0.5
    write_answers(tmp_path / "answers.jsonl", ("train",))
    code, _, err = call("run", config)
    assert code == 2
    assert "stage generate was made with other settings" in err


# -- what validate finds --------------------------------------------------------------------------------


def test_validate_online_tells_model_context_and_latency(tmp_path: Path) -> None:
    def script(call_: Call) -> Response:
        if call_.path.endswith("/models"):
            return as_json({"object": "list", "data": [{"id": "other"}, {"id": "big", "max_model_len": 8192}]})
        return teach(call_)

    with serve(script) as server:
        config = write(tmp_path, behind(server))
        code, out, err = call("validate", config)
        assert (code, server.calls) == (0, []), err
        assert f"teacher: big at {server.url}, api chat" in out
        assert f"teacher big: that {server.url} serves it (--online sends one request)" in out
        code, out, err = call("validate", config, "--online")
        assert code == 0, err
        assert [c.method for c in server.calls] == ["POST", "GET"]
    assert "teacher: online: served by large-2026, context 8,192 tokens, " in out
    assert "5 + 2 tokens, outcome ok" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (error(401, "who are you?"), "who are you?"),
        (error(404, "no model big"), "check `model`"),
        (error(422, "unknown field seed"), "unknown field seed"),
    ],
)
def test_validate_online_finds_what_the_provider_refuses(tmp_path: Path, bad: Response, says: str) -> None:
    with serve(lambda _: bad) as server:
        code, out, err = call("validate", write(tmp_path, behind(server)), "--online")
    assert code == 3
    assert says in err
    assert "error teacher: 1 problem" in out


def test_validate_finds_a_server_that_isnt_there(tmp_path: Path) -> None:
    with serve(teach) as server:
        pass
    code, out, err = call("validate", write(tmp_path, behind(server)), "--online")
    assert code == 3, out
    assert f"{server.url}: the first request got no answer: no connection" in err


def test_validate_finds_what_is_wrong_with_a_teacher_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAD_TEST_KEY", raising=False)
    config = write(tmp_path, {"model": "big", "engine": {"type": "openai", "base_url": "http://h/v1"}})
    for override, says in (
        ("teacher.engine.api_key_env=PLAD_TEST_KEY", "teacher.engine.api_key_env: the environment variable"),
        ("teacher.engine.base_url=http://u:p@h/v1", "holds a user or password"),
        ("teacher.engine.context=9", "tokenizer and context go together"),
        ("teacher.sft=true", "sft must be false"),
        ("teacher.lora={r: 4}", "remove lora"),
        ("teacher.dtype=float16", "remove dtype"),
        ("teacher.prompt.separator=x", "prompt.separator has no effect"),
        ("teacher={model: model, engine: {type: vllm}}", "engine vllm needs the package vllm"),
        ("teacher.engine={type: file, path: nowhere.jsonl}", "nowhere.jsonl: no such data file"),
    ):
        code, _, err = call("validate", config, override)
        assert code == 2, override
        assert says in err


def test_validate_counts_the_prompts_that_a_file_has_no_answer_to(tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.jsonl", ("train",))
    config = write(tmp_path, {"model": "somebody", "engine": {"type": "file", "path": "answers.jsonl"}})
    code, out, err = call("validate", config)
    assert code == 0, err
    assert "6 of 6 test rows have no answer: it is left out of the evaluation" in out
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    (tmp_path / "answers.jsonl").write_text("\n".join(lines[:12]) + "\n")
    code, _, err = call("validate", config)
    assert code == 2
    assert "of 12 distillation prompts have no answer" in err
    assert "generate.max_failed" in err
    code, out, err = call("validate", config, "generate.max_failed=0.9")
    assert code == 0, err
    (tmp_path / "answers.jsonl").write_text('{"prompt": "p"}\n[]\n{"text": "t"}\n{"id": [1], "text": "t"}\n')
    code, _, err = call("validate", config)
    assert "4 rows can't be used" in err
    assert "answers.jsonl:3: neither 'id' nor 'prompt'" in err


# -- pairs that exist already ---------------------------------------------------------------------------


def test_pairs_of_a_file_are_added_and_may_not_ask_what_test_rows_ask(taught: tuple[Path, Server]) -> None:
    config, _ = taught
    file = config.parent / "preferences.jsonl"
    talk = [{"prompt": f"Another question {i}", "chosen": "yes", "rejected": "no"} for i in range(5)]
    file.write_text(
        "".join(json.dumps(row) + "\n" for row in [*talk, {**talk[0], "tie": True}, {**talk[1], "chosen": "no"}])
    )
    copy = config.parent / "with_file.yaml"
    copy.write_text(config.read_text())
    settings = ("pairs.file.path=preferences.jsonl", "--clean", "pair", "--to", "distill")
    code, out, err = call("run", copy, *settings)
    assert code == 0, out + err
    counts = json.loads((config.parent / "run/manifest.json").read_text())["stages"]["pair"]["counts"]
    assert (counts["from_file"], counts["file_ties"], counts["file_identical"]) == (5, 1, 1)
    table = load_dataset("parquet", data_files=str(config.parent / "run/pairs.parquet"), split="train")
    assert len(table) == counts["pairs"] + 5
    assert [r["chosen_source"] for r in table][-5:] == ["file"] * 5
    leak = {"prompt": rows("test", 1)[0]["prompt"], "chosen": "yes", "rejected": "no"}
    file.write_text(json.dumps(leak) + "\n")
    code, _, err = call("run", copy, *settings)
    assert code == 2
    assert "1 pairs ask what validation or test rows ask" in err
