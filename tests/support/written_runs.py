"""Run directories as the pipeline leaves them, with whatever texts and results a test wants in them."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plad.answers.ledger import Ledger
from plad.answers.question import Question
from plad.answers.reply import Reply
from plad.data.formats import write_examples_jsonl
from plad.evaluate.deciding import with_comparison
from plad.evaluate.files import write_answers, write_judgements
from plad.evaluate.likelihood_calibration import (
    METHOD,
    RankedTexts,
    calibration_change,
    calibration_difference,
    likelihood_calibration,
)
from plad.evaluate.likelihoods import ScoredText, judged
from plad.evaluate.metrics import CalibrationFigures, Cost, Metrics
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.evaluate.winrate import judge_pairs
from plad.judges.base import Comparison
from plad.judges.reference import ReferenceScorer
from plad.records import Example, Generation, Outcome, Verdict
from plad.report.parts.run_facts import LogRow, StageRecord
from plad.rundir.atomic import write_json, write_text

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


def typed(figures: Mapping[str, Any]) -> Metrics:
    """Some of the contents of metrics.json as they are read."""
    return Metrics.model_validate({"systems": {}, **figures})


def stages(manifest: Mapping[str, Any]) -> dict[str, StageRecord]:
    """The stages of a manifest as they are read."""
    return {name: StageRecord.model_validate(stage) for name, stage in manifest["stages"].items()}


def log_rows(rows: Sequence[Mapping[str, Any]]) -> list[LogRow]:
    """Rows of metrics.jsonl as they are read."""
    return [LogRow.of(row) for row in rows]


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
    texts: list[str] = []
    for case in page_cases(page)["cases"]:
        turns = case["prompt"]
        runs = [*(t[1] for t in turns), *(t[0] for t in case["texts"] if t)]
        texts += [case["id"], *(t[0] for t in turns)]
        texts += ["".join(run[i % 2 :] for i, run in enumerate(pieces)) for pieces in runs]
    return texts


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
    metrics, judgements = evaluate_systems(examples, given, [ReferenceScorer()], bootstrap=Bootstrap(500))
    if {"teacher", "student_sft"} <= set(answers):
        rates, more = judge_pairs(
            examples, answers["teacher"], answers["student_sft"], [ReferenceScorer()], bootstrap=Bootstrap(500)
        )
        metrics = metrics.model_copy(update={"teacher_student_win_rate": rates})
        judgements = [*judgements, *more]
    write_json(path / "manifest.json", MANIFEST)
    write_json(path / "config.resolved.json", config)
    metrics.write(path)
    write_judgements(path / "eval/judgements.parquet", judgements)
    write_answers(path / "eval/answers.jsonl", examples, given)
    write_examples_jsonl(path / "data/test.jsonl", examples)
    rows = curves() if metrics_rows is None else metrics_rows
    write_text(path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    return metrics.to_json()


EXAMPLES = [Example(f"e{i:02}", f"prompt {i}", (f"target {i}", f"reference word{i} here")) for i in range(40)]


GOOD = [f"reference word{i} here" for i in range(40)]


FAIR = [f"reference word{i} there" for i in range(40)]


BAD = ["nothing"] * 40


TEN_EXAMPLES = [Example(f"e{i}", f"prompt {i}", (f"word{i} a b", f"word{i} c d")) for i in range(10)]


def measured() -> dict[str, Any]:
    texts = {
        "teacher": [f"word{i} c d" for i in range(10)],
        "student_sft": ["x"] * 9 + ["x y"],
        "student": [f"word{i} c" for i in range(10)],
        "further": ["c d"] * 10,
    }
    answers = {s: generations(TEN_EXAMPLES, t) for s, t in texts.items()}
    return evaluate_systems(TEN_EXAMPLES, answers, [ReferenceScorer()], bootstrap=Bootstrap(200))[0].to_json()


DRAWS = Bootstrap(300)


class Opinion:
    """A stand-in for an LLM judge: the longer answer wins, now and then a tie or nothing, by a hash."""

    name = "opinion"

    def compare(
        self,
        examples: Sequence[Example],
        ours: Sequence[str],
        theirs: Sequence[str],
        references: Sequence[Sequence[str]],
    ) -> list[Comparison | None]:
        return [_opinion(a, b) for a, b in zip(ours, theirs, strict=True)]

    def describe(self) -> dict[str, Any]:
        """As the LLM judge does."""
        return {
            "type": "llm",
            "model": "owner/opinion-7b",
            "task": "summary",
            "rubric": "The better summary keeps the points that matter.",
            "rule": "asked in both orders; disagreement is a tie",
            "comparisons": 120,
            "equal": 4,
            "decided": 100,
            "orders_agree": 74,
            "position_bias": {"prefers_first": 17, "prefers_second": 3, "tie_in_one_order": 6, "share": 0.26},
            "unjudged": {"unparsable": 2},
            "speaks_to_judge": 1,
            "wins_denied": 1,
            "truncated": 0,
            "scored": 240,
        }


def _opinion(ours: str, theirs: str) -> Comparison | None:
    luck = zlib.crc32(f"{ours}|{theirs}".encode("utf-8", "replace")) % 10
    if luck == 0:
        return None
    verdict = Verdict.TIE if luck == 1 or len(ours) == len(theirs) else Verdict.WIN
    verdict = Verdict.LOSS if verdict is Verdict.WIN and len(ours) < len(theirs) else verdict
    points = {Verdict.WIN: 1.0, Verdict.TIE: 0.5, Verdict.LOSS: 0.0}[verdict]
    return Comparison(verdict, points, 1 - points)


def measured_calibration(
    examples: Sequence[Example], texts: Mapping[str, Sequence[str]], *, gain: float = 1.5
) -> dict[str, Any]:
    """`calibration` of metrics.json, with likelihoods that know the quality after distillation and not before."""
    judge, rng = ReferenceScorer(), np.random.default_rng(0)
    candidates = {
        e.id: [
            ScoredText(t, None if system == "teacher" else (1,))
            for t, system in {rows[i]: system for system, rows in texts.items()}.items()
        ]
        for i, e in enumerate(examples)
    }
    candidates = {i: found for i, found in candidates.items() if len(found) > 1}
    rows = [e for e in examples if e.id in candidates]
    known = [
        judge.score(
            [e] * len(candidates[e.id]), [t.text for t in candidates[e.id]], [e.references] * len(candidates[e.id])
        )
        for e in rows
    ]
    before = {e.id: rng.normal(-2, 0.6, len(candidates[e.id])) for e in rows}
    after = {e.id: before[e.id] + gain * np.array(q, dtype=np.float64) for e, q in zip(rows, known, strict=True)}
    by = judged(judge, rows, candidates, {"student_sft": before, "student": after})
    return {
        "prompts": len(candidates),
        "texts": sum(map(len, candidates.values())),
        "left_out": {"truncated": 3, "alone": len(examples) - len(candidates)},
        "samples": {"student_sft": 4, "teacher": 4},
        "temperature": 0.7,
        "writers": ["student_sft", "teacher"],
        "judges": {
            judge.name: {
                **calibration_change(*by.values(), DRAWS).to_json(),
                "own": calibration_change(*([p.of_its_own() for p in b] for b in by.values()), DRAWS).to_json(),
            }
        },
        "method": METHOD,
    }


def of_round(rate: float, teacher: float, pairs: int | None) -> dict[str, Any]:
    figures = {"win_rate": rate, "low": rate - 0.1, "high": rate + 0.1, "n": 40}
    against = {"value": teacher, "low": teacher - 0.1, "high": teacher + 0.1, "n": 40}
    found = {"validation": figures | {"rougeL": 0.3, "words": 21.0, "ended": 0.95}, "teacher_student": against}
    return found | {"met_on": "validation"} | ({} if pairs is None else {"pairs": pairs})


def manifest() -> dict[str, Any]:
    """Stages with rounds, an alarm, and a provider that was asked while sampling and while evaluating."""
    written = json.loads(json.dumps(MANIFEST))
    written["stages"]["distill"]["counts"] |= {
        "rounds": [of_round(0.25, 0.7, None), of_round(0.4, 0.62, 159), of_round(0.38, 0.6, 171)],
        "kept_round": 1,
        "stopped": "the validation win rate no longer rises",
        "stage": "distill",
        "alarms": ["the share of answers that end fell from 95 % to 60 %: raise distill.objective.sft_weight"],
    }
    written["stages"]["evaluate"] = {"seconds": 611.0, "finished": "2026-11-24T08:20:00Z", "counts": {"rows": 60}}
    return written


BILL = (  # system, when, tokens in and out, dollars
    ("teacher", "2026-11-24T07:20:00Z", 210, 41, 0.0021),
    ("teacher", "2026-11-24T07:21:00Z", 190, 38, None),
    ("judge opinion-7b", "2026-11-24T08:10:00Z", 700, 60, 0.0102),
)


def write_bill(run: Path, rows: Sequence[tuple[str, str, int, int, float | None]] = BILL) -> None:
    """A ledger of a provider's answers, each come when `rows` says."""
    with Ledger(run / "generations.sqlite") as ledger:
        for i, (system, _, into, out, usd) in enumerate(rows):
            reply = Reply(Outcome.OK, "x", prompt_tokens=into, completion_tokens=out, model="big-1", cost=usd)
            question = Question(f"k{i}", f"a{i}", Example(f"e{i}", ""), 0, 0, None, {"engine": "openai"})
            ledger.put(question, system, reply)
        for i, (_, when, *_) in enumerate(rows):
            ledger._db.execute("UPDATE generations SET created = ? WHERE key = ?", (when, f"k{i}"))


def write_full_run(
    path: Path, examples: Sequence[Example], answers: Mapping[str, Sequence[str]], **more: Any
) -> dict[str, Any]:
    """Write the run; returns its metrics.

    Args:
        answers: of teacher, student_sft, student and of methods that it was compared with.
        more: see `write_run`.
    """
    methods = [system for system in answers if system not in ("teacher", "student_sft", "student")]
    write_run(path, examples, answers, **more)
    given = {system: generations(examples, texts) for system, texts in answers.items()}
    metrics, judgements = evaluate_systems(examples, given, [ReferenceScorer(), Opinion()], bootstrap=Bootstrap(300))
    rates, more = judge_pairs(
        examples, answers["teacher"], answers["student_sft"], [ReferenceScorer()], bootstrap=Bootstrap(300)
    )
    costs = {"updates": 60, "seconds": 812.0, "peak_memory": 2_900_000_000, "tokens_cached": 9120, "tokens_fresh": 0}
    metrics = with_comparison(metrics, methods, dict.fromkeys((*methods, "student"), Cost.model_validate(costs)))
    calibration = measured_calibration(examples, {s: answers[s] for s in ("teacher", "student_sft", "student")})
    metrics = metrics.model_copy(
        update={
            "teacher_student_win_rate": rates,
            "calibration": CalibrationFigures.model_validate(calibration),
        }
    )
    write_json(path / "manifest.json", manifest())
    metrics.write(path)
    write_judgements(path / "eval/judgements.parquet", [*judgements, *more])
    write_answers(path / "eval/answers.jsonl", examples, given)
    write_bill(path)
    return metrics.to_json()


def calibration_section(before: list[RankedTexts], after: list[RankedTexts]) -> dict[str, Any]:
    return {
        "prompts": len(before),
        "texts": sum(len(p.quality) for p in before),
        "left_out": {"truncated": 3, "same_text": 0, "alone": 1},
        "temperature": 0.7,
        "writers": ["student_sft"],
        "judges": {
            "reference": {
                "student_sft": likelihood_calibration(before, DRAWS).to_json(),
                "student": likelihood_calibration(after, DRAWS).to_json(),
                "difference": calibration_difference(after, before, DRAWS).to_json(),
            }
        },
    }


def calibrated(gain: float, prompts: int = 40) -> dict[str, Any]:
    """Before distillation likelihoods are noise; after it they hold `gain` times the quality, too."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(size=(prompts, 4))
    noise = rng.normal(size=(prompts, 4))
    before = [RankedTexts(n, q) for n, q in zip(noise, quality, strict=True)]
    after = [RankedTexts(n + gain * q, q) for n, q in zip(noise, quality, strict=True)]
    return {"calibration": calibration_section(before, after)}
