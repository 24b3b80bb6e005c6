"""What the page says was distilled, how fast, against what, and what to try next."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from plad.answers.ledger import Ledger
from plad.answers.question import Question, Sampling
from plad.answers.reply import Reply
from plad.answers.speed import Speed, covered, speed
from plad.evaluate.metrics import ModelFacts
from plad.policy.folder import model_size
from plad.records import Example, Outcome
from plad.report.page import build_report
from plad.report.parts import next_steps
from plad.report.parts.blocks import Code
from plad.report.parts.run_facts import LogRow, RunFacts
from plad.report.sections.distilled import comparison, distilled
from plad.rundir.manifest import StageRecord
from tests.support.tiny_models import tiny_folder, tiny_model
from tests.support.written_runs import measured, typed

CONFIG: dict[str, Any] = {
    "teacher": {"model": "models/big"},
    "student": {"model": "owner/small"},
    "generate": {"max_new_tokens": 48},
    "distill": {"objective": {"type": "rank"}},
}
TEACHER = ModelFacts(name="models/big", parameters=8_000_000, layers=30, disk=16_000_000, dtype="BF16")
STUDENT = ModelFacts(name="owner/small", parameters=2_000_000, layers=12, disk=8_000_000, dtype="F32")


def sampled(tokens: int, seconds: float | None, *, engine: str = "transformers", usd: float | None = None) -> Speed:
    return Speed(engine, answers=10, tokens=tokens, seconds=seconds, each=2.0, usd=usd)


def facts(**more: Any) -> RunFacts:
    metrics = typed(measured()).model_copy(update={"models": {"teacher": TEACHER, "student": STUDENT}})
    return RunFacts("run", **{"config": CONFIG, "metrics": metrics, **more})


def test_the_size_of_a_folder_is_what_the_loaded_model_has(tmp_path: Path) -> None:
    size = model_size(tiny_folder(tmp_path, layers=3))
    assert size.parameters == sum(p.numel() for p in tiny_model(layers=3).parameters())
    assert (size.layers, size.dtype) == (3, "F32")
    assert size.disk == (tmp_path / "model.safetensors").stat().st_size
    save_file({"layers.0.attention.wq.weight": torch.zeros(9, 9)}, tmp_path / "consolidated.safetensors")
    assert model_size(tmp_path) == size, "the same weights once more, as their maker has them, are not loaded"
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_size(tmp_path) == size


def test_both_models_stand_side_by_side_with_what_the_student_saves() -> None:
    both = {"teacher": sampled(1000, 50.0), "student": sampled(1200, 20.0)}
    section = distilled(facts(speeds=both))
    assert section is not None
    table = next(iter(build_report(facts(speeds=both)).told()))[0]
    assert table is not None
    assert [c.text for c in table.rows[0]] == ["Teacher", "big", "8.0 M", "30", "16 MB", "20.0", "2.00"]
    assert [c.text for c in table.rows[1]][1:6] == ["small", "2.0 M", "12", "8 MB", "60.0"]
    assert comparison(facts(speeds=both)).startswith(
        "small, distilled from big: 4.0 times fewer parameters, 2.0 times smaller on disk, 3.0 times the tokens a"
    )


def test_a_provider_has_latency_and_cost_and_is_not_compared_in_speed() -> None:
    asked = {"teacher": sampled(1000, 50.0, engine="openai", usd=0.02), "student": sampled(1200, None)}
    api = facts(speeds=asked, metrics=typed(measured()).model_copy(update={"models": {"student": STUDENT}}))
    table = next(iter(build_report(api).told()))[0]
    assert table is not None
    assert [c.text for c in table.rows[0]] == ["Teacher", "big", "–", "–", "–", "20.0", "2.00", "$2.00"]
    assert table.rows[1][5].detail == "too quick to measure"
    assert comparison(api) == "small, distilled from big."


def test_a_run_of_an_earlier_version_shows_the_names() -> None:
    old = RunFacts("run", config=CONFIG, metrics=typed(measured()))
    table = next(iter(build_report(old).told()))[0]
    assert table is not None
    assert [c.text for c in table.rows[1]] == ["Distilled student", "small", *["–"] * 5]


def test_who_was_not_compared_with_seqkd_is_told_how() -> None:
    section = distilled(facts())
    assert section is not None
    assert "plad compare CONFIG --methods seqkd" in [b.text for b in section.each() if isinstance(b, Code)]
    trained = {**CONFIG, "distill": {"objective": {"type": "sft"}}}
    figures = measured()
    figures["differences"]["student - seqkd"] = figures["differences"]["student - further"]
    for known in (facts(config=trained), facts(metrics=typed(figures))):
        section = distilled(known)
        assert section is not None
        assert not [b for b in section.each() if isinstance(b, Code) and "plad compare" in b.text]
    assert (
        "Against SeqKD, plain training on the teacher's answers: win rate by judge reference 0.0 points (95 %"
        in str(section)
    )


@pytest.mark.parametrize(("spans", "length"), [([(0, 4), (1, 3), (3, 6), (10, 12)], 8), ([], 0), ([(5, 7), (5, 7)], 2)])
def test_time_under_way_counts_once_and_pauses_not_at_all(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length


def test_the_ledger_tells_how_fast_the_evaluated_answers_came(tmp_path: Path) -> None:
    """Two answers at once for 8 s, an hour's pause, one of 4 s: 30 tokens in 12 s. Other temperatures don't count."""
    rows = (("e0", 8.0, "00:00:10"), ("e1", 8.0, "00:00:10"), ("e2", 4.0, "01:00:00"), ("warm", 99.0, "03:00:00"))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for i, (example, seconds, when) in enumerate(rows):
            spec = {"engine": "transformers", "temperature": 0.7 if example == "warm" else 0.0, "max_new_tokens": 48}
            reply = Reply(Outcome.OK, "yes", prompt_tokens=3, completion_tokens=10, seconds=seconds)
            ledger.put(Question(f"k{i}", f"a{i}", Example(example, ""), 0, 0, None, spec), "student", reply)
            created = f"2026-11-24T{when}Z"
            ledger.write([("UPDATE generations SET created = ? WHERE key = ?", (created, f"k{i}"))])
        found = speed(ledger, "student", {row[0]: "yes" for row in rows}, Sampling(0.0, 48))
        assert found is not None
        assert (found.answers, found.seconds, found.tokens_a_second, found.each) == (3, 12.0, 2.5, 8.0)
        assert speed(ledger, "student", {"e0": "another"}, Sampling(0.0, 48)) is None


def test_of_runs_that_share_a_ledger_each_has_the_speed_of_its_own_student(tmp_path: Path) -> None:
    """Two students gave the same label, the second one later and ten times slower."""
    spec = {"engine": "transformers", "temperature": 0.0, "max_new_tokens": 48}
    for run, seconds in (("a", 1.0), ("b", 10.0)):
        with Ledger(tmp_path / "l.sqlite", run=run) as ledger:
            reply = Reply(Outcome.OK, "yes", prompt_tokens=3, completion_tokens=10, seconds=seconds)
            ledger.put(Question(f"k{run}", f"a{run}", Example("e", ""), 0, 0, None, spec), "student", reply)
    with Ledger(tmp_path / "l.sqlite", readonly=True) as ledger:
        found = {run: speed(ledger, "student", {"e": "yes"}, Sampling(0.0, 48), run) for run in ("a", "b", "c")}
    assert {run: measured and measured.each for run, measured in found.items()} == {"a": 1.0, "b": 10.0, "c": 10.0}


def distill(**counts: Any) -> dict[str, StageRecord]:
    return {"distill": StageRecord.model_validate({"seconds": 1.0, "finished": "", "counts": counts})}


def log(**values: float) -> tuple[LogRow, ...]:
    return (LogRow("distill", 3, values, validation="accuracy" in values),)


@pytest.mark.parametrize("above", [True, False])
def test_each_rule_has_its_threshold(above: bool) -> None:
    """A little above each threshold, and a little below."""
    x = 0.01 if above else -0.01
    metrics = typed({**measured(), "teacher_student_win_rate": {"j": {"value": next_steps.LEAD + x, "n": 9}}})
    assert (next_steps.weak_teacher(facts(metrics=metrics)) is None) is above
    student = metrics.systems["student"].model_copy(update={"truncated": next_steps.CUT_OFF + x})
    cut = facts(metrics=metrics.model_copy(update={"systems": {**metrics.systems, "student": student}}))
    assert (next_steps.cut_off(cut) is None) is not above
    assert above is ("now 48" in (next_steps.cut_off(cut) or ""))
    order = facts(log=log(accuracy=next_steps.IN_ORDER + x))
    assert (next_steps.few_in_order(order) is None) is above
    assert (next_steps.inactive(facts(log=log(active=next_steps.ACTIVE + x))) is None) is above


def test_alarms_come_first_and_a_better_student_behind_its_teacher_may_learn_again() -> None:
    stages = distill(alarms=["answers get longer (9 -> 90 words): lower beta"])
    assert next_steps.next_steps(facts(stages=stages))[0] == "Answers get longer (9 -> 90 words): lower beta."
    figures = typed(measured())
    changed = dict(figures.differences)
    for pair, value in (("student - student_sft", 0.2), ("student - teacher", -0.2)):
        e = (
            changed[pair]
            .win_rate["reference"]
            .model_copy(update={"value": value, "low": value - 0.1, "high": value + 0.1, "p": 0.01})
        )
        changed[pair] = changed[pair].model_copy(update={"win_rate": {"reference": e}})
    metrics = figures.model_copy(update={"differences": changed})
    assert "distill.rounds: 2" in (next_steps.another_round(facts(metrics=metrics)) or "")
    assert next_steps.another_round(facts(metrics=figures)) is None
    assert next_steps.another_round(facts(metrics=metrics, stages=stages)) is None


def test_a_run_without_figures_is_told_nothing() -> None:
    assert next_steps.next_steps(RunFacts("run")) == []
    assert distilled(RunFacts("run")) is None
