"""A run directory as the pipeline leaves it, with whatever texts a test wants in it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plad.data.formats import write_examples_jsonl
from plad.evaluate import evaluate_systems, judge_pairs
from plad.evaluate.files import write_answers, write_judgements
from plad.judges.reference import ReferenceJudge
from plad.records import Example, Generation, Outcome
from plad.rundir.directory import write_json, write_text

MANIFEST: dict[str, Any] = {
    "schema": 1,
    "versions": {"python": "3.11.9", "machine": "Linux x86_64", "plad": "0.1.0", "torch": "2.13.0"},
    "stages": {
        "data": {
            "seconds": 0.4,
            "finished": "2026-11-24T06:40:00Z",
            "counts": {
                "sft": 120,
                "distill": 118,
                "validation": 40,
                "test": 60,
                "skipped": {"train": 2, "validation": 0, "test": 0},
                "duplicate_prompts": {"train": 0, "validation": 0, "test": 0},
            },
        },
        "sft": {
            "seconds": 1834.2,
            "finished": "2026-11-24T07:10:00Z",
            "counts": {"teacher": {"steps": 15, "seconds": 1200.0}, "student": {"steps": 15, "seconds": 610.5}},
        },
        "generate": {
            "seconds": 912.0,
            "finished": "2026-11-24T07:30:00Z",
            "counts": {"student_sft": {"ok": 170, "truncated": 66}, "teacher": {"ok": 220, "truncated": 16}},
        },
        "pair": {
            "seconds": 0.2,
            "finished": "2026-11-24T07:30:01Z",
            "counts": {"candidates": 236, "dropped_truncated": 71, "dropped_identical": 6, "pairs": 159},
        },
        "distill": {
            "seconds": 1500.9,
            "finished": "2026-11-24T08:00:00Z",
            "counts": {"steps": 15, "groups": 158, "too_long": 1, "no_completion": 0},
        },
    },
}

CONFIG: dict[str, Any] = {
    "run": {"dir": "runs/demo", "seed": 0},
    "teacher": {"model": "big", "lora": {"r": 8}},
    "evaluate": {"judges": [{"type": "reference"}]},
}


def generations(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Generation]:
    """One answer an example; an empty text has that outcome."""
    return {
        e.id: Generation(e.id, 0, t, tuple(range(len(t.split()) + 1)), Outcome.OK if t else Outcome.EMPTY, 9)
        for e, t in zip(examples, texts, strict=True)
    }


def page_cases(page: str) -> dict[str, Any]:
    """The data of a page's case browser, read as its script reads it."""
    return json.loads(page.split('<script type="application/json" id="cases">')[1].split("</script>")[0])


def page_texts(page: str) -> list[str]:
    """Every id, role, prompt and answer of a page's case browser."""
    found: list[str] = []
    for case in page_cases(page)["cases"]:
        turns = case["prompt"]
        runs = [*(t[1] for t in turns), *(t[0] for t in case["texts"] if t)]
        found += [case["id"], *(t[0] for t in turns)]
        found += ["".join(run[i % 2 :] for i, run in enumerate(pieces)) for pieces in runs]
    return found


def curves(steps: int = 15) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of all three training runs."""
    rows: list[dict[str, Any]] = []
    for stage, start in (("sft/teacher", 3.1), ("sft/student", 4.2)):
        rows += [
            {"stage": stage, "step": i + 1, "loss": start * 0.97**i, "learning_rate": 1e-4, "grad_norm": 1.0}
            for i in range(steps)
        ]
    for i in range(steps + 1):
        if i:
            row = {"loss": 0.9 * 0.95**i, "grad_norm": 2.0 * 0.98**i, "active": 0.95**i, "accuracy": 1 - 0.5 * 0.9**i}
            row |= {"chosen_logp": -2.4 + 0.01 * i, "rejected_logp": -2.0 - 0.05 * i, "tokens_per_s": 900.0}
            rows.append({"stage": "distill", "step": i, **row})
        if i % 5 == 0:
            figures = {"win_rate": 0.3 + 0.01 * i, "low": 0.2 + 0.01 * i, "high": 0.4 + 0.01 * i, "n": 64}
            figures |= {"rougeL": 0.25 + 0.002 * i, "words": 20.0 - i / 10, "ended": 0.9}
            rows.append({"stage": "distill", "step": i, "validation": figures})
    return rows


def write_run(
    path: Path,
    examples: Sequence[Example],
    answers: Mapping[str, Sequence[str]],
    *,
    config: Mapping[str, Any] = CONFIG,
    metrics_rows: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a finished run; returns its metrics."""
    given = {system: generations(examples, texts) for system, texts in answers.items()}
    metrics, judgements = evaluate_systems(examples, given, [ReferenceJudge()], bootstrap=500)
    if {"teacher", "student_sft"} <= set(answers):
        rates, more = judge_pairs(
            examples, answers["teacher"], answers["student_sft"], [ReferenceJudge()], bootstrap=500
        )
        metrics["teacher_student_win_rate"], judgements = rates, [*judgements, *more]
    write_json(path / "manifest.json", MANIFEST)
    write_json(path / "config.resolved.json", config)
    write_json(path / "eval/metrics.json", metrics)
    write_judgements(path / "eval/judgements.parquet", judgements)
    write_answers(path / "eval/answers.jsonl", examples, given)
    write_examples_jsonl(path / "data/test.jsonl", examples)
    rows = curves() if metrics_rows is None else metrics_rows
    write_text(path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    return metrics
