"""A run directory that has everything a page can show: two judges, calibration, methods, rounds, a provider's bill."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plad.answers.ledger import Ledger
from plad.answers.reply import Reply
from plad.evaluate import evaluate_systems, judge_pairs
from plad.evaluate.calibration import METHOD, before_and_after
from plad.evaluate.candidates import Text, judged
from plad.evaluate.comparison import add_comparison
from plad.evaluate.files import write_answers, write_judgements
from plad.judges.base import Comparison
from plad.judges.reference import ReferenceJudge
from plad.records import Example, Outcome, Verdict
from plad.rundir.directory import write_json
from tests.report_run import MANIFEST, generations, write_run

OPTIONS = {"resamples": 300, "seed": 0}


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
    judge, rng = ReferenceJudge(), np.random.default_rng(0)
    candidates = {
        e.id: [
            Text(t, None if system == "teacher" else (1,))
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
                **before_and_after(by, **OPTIONS),
                "own": before_and_after({m: [p.of_its_own() for p in found] for m, found in by.items()}, **OPTIONS),
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
    found = json.loads(json.dumps(MANIFEST))
    found["stages"]["distill"]["counts"] |= {
        "rounds": [of_round(0.25, 0.7, None), of_round(0.4, 0.62, 159), of_round(0.38, 0.6, 171)],
        "kept_round": 1,
        "stopped": "the validation win rate no longer rises",
        "stage": "distill",
        "alarms": ["the share of answers that end fell from 95 % to 60 %: raise distill.objective.sft_weight"],
    }
    found["stages"]["evaluate"] = {"seconds": 611.0, "finished": "2026-11-24T08:20:00Z", "counts": {"rows": 60}}
    return found


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
            ledger.put(f"k{i}", f"a{i}", system, f"e{i}", 0, reply, spec={"engine": "openai"})
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
    metrics, judgements = evaluate_systems(examples, given, [ReferenceJudge(), Opinion()], bootstrap=300)
    metrics["teacher_student_win_rate"], more = judge_pairs(
        examples, answers["teacher"], answers["student_sft"], [ReferenceJudge()], bootstrap=300
    )
    costs = {"updates": 60, "seconds": 812.0, "peak_memory": 2_900_000_000, "tokens_cached": 9120, "tokens_fresh": 0}
    add_comparison(metrics, methods, dict.fromkeys((*methods, "student"), costs))
    metrics["calibration"] = measured_calibration(
        examples, {s: answers[s] for s in ("teacher", "student_sft", "student")}
    )
    write_json(path / "manifest.json", manifest())
    write_json(path / "eval/metrics.json", metrics)
    write_judgements(path / "eval/judgements.parquet", [*judgements, *more])
    write_answers(path / "eval/answers.jsonl", examples, given)
    write_bill(path)
    return metrics
