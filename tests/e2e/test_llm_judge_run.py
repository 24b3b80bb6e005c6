"""A whole run judged by a model behind an endpoint."""

import json
from pathlib import Path

import pytest

from tests.support.command import call
from tests.support.judges import read, verdict
from tests.support.servers.scripted import Call, Response, serve
from tests.support.task import write_task

CANARY = "canary-judge-0123456789"


def shorter(call_: Call) -> Response:
    """The shorter answer is better."""
    seen = read(call_)
    a, b = map(len, seen.answers.values())
    return verdict(seen.tie if a == b else seen.labels[0 if a < b else 1])


def test_a_run_with_an_llm_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAD_JUDGE_KEY", CANARY)
    with serve(shorter) as server:
        judges = [
            {
                "type": "llm",
                "base_url": server.url,
                "model": "wise",
                "api_key_env": "PLAD_JUDGE_KEY",
                "task": "summary",
            },
            {"type": "reference"},
        ]
        config = write_task(
            tmp_path,
            evaluate__judges=judges,
            sft__epochs=1,
            distill__validation={"evaluations": 0},
            distill__epochs=0.2,
        )
        code, out, err = call("validate", config)
        assert code == 0, out + err
        assert "llm: wise at" in out
        code, out, err = call("run", config)
        assert code == 0, out + err
        asked = len(server.calls)
        assert {c.headers["Authorization"] for c in server.calls} == {f"Bearer {CANARY}"}
        metrics = json.loads((tmp_path / "run/eval/metrics.json").read_text())
        assert metrics["systems"]["student"]["win_rate"]["wise"]["n"] == 6
        assert metrics["teacher_student_win_rate"]["wise"]["n"] == 12
        assert metrics["agreement"]["wise and reference"]["n"] > 0
        assert list(metrics["calibration"]["judges"]) == ["reference"]  # a pairwise judge gives no scores
        code, out, err = call("run", config, "--clean", "evaluate")
        assert code == 0, out + err
        assert len(server.calls) == asked
        again = json.loads((tmp_path / "run/eval/metrics.json").read_text())
        assert again["systems"] == metrics["systems"]
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
