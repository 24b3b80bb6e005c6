"""Evaluate all systems on the test rows."""

import gc
import logging
from typing import Any

from plad.answers.fill import recorded
from plad.answers.question import Sampling
from plad.pipeline.context import Context
from plad.pipeline.engines import (
    answer_set,
    engine_for,
    fill,
    judge_resources,
    missing_answers,
    open_ledger,
    served_by_others,
)
from plad.pipeline.stages.baselines import costs
from plad.pipeline.stages.calibration import calibrate
from plad.pipeline.stages.generate import recorded_on_distill
from plad.records import ANSWERED, Example, Generation

log = logging.getLogger("plad")


def _test_answers(ctx: Context, rows: list[Example]) -> tuple[dict[str, dict[str, Generation]], list[str]]:
    """The answers of all systems on the test rows, and what a reader must know of them."""
    cfg = ctx.config
    sampling = Sampling(cfg.evaluate.temperature, cfg.evaluation_max_new_tokens, 1)
    answers: dict[str, dict[str, Generation]] = {}
    notes: list[str] = []
    with open_ledger(ctx) as ledger:
        for system in ("teacher", "student_sft", "student", *(m.name for m in cfg.methods)):
            engine = engine_for(ctx, system, ledger)
            lacking = missing_answers(engine, rows)
            if lacking:
                notes.append(f"{system} is left out: {lacking}")
                log.warning(notes[-1])
                continue
            asked = answer_set(ctx, system, sampling)
            fill(ctx, engine, rows, len(rows), asked, ledger)
            answers[system] = {i: given[0] for i, given in recorded(rows, asked, ledger).items()}
            del engine
            gc.collect()
        notes += served_by_others(ctx, ledger)
    return answers, notes


def evaluate(ctx: Context) -> dict[str, Any]:
    """Score target, teacher, SFT student, distilled student and baselines on the test rows."""
    from plad.evaluate.comparison import with_comparison
    from plad.evaluate.files import write_answers, write_judgements
    from plad.evaluate.run import evaluate_systems
    from plad.evaluate.stats import Bootstrap
    from plad.judges.base import open_judges

    cfg, run = ctx.config, ctx.run
    rows = ctx.examples("test")[: cfg.evaluate.limit]
    answers, notes = _test_answers(ctx, rows)
    judges = open_judges(ctx.judge_sections(), judge_resources(ctx))
    metrics, judgements = evaluate_systems(
        rows,
        answers,
        judges,
        bootstrap=Bootstrap(cfg.evaluate.bootstrap, cfg.run.seed),
        stemmer=cfg.evaluate.stemmer,
        rouge=cfg.evaluate.rouge,
    )
    rates, more = _teacher_against_student(ctx, judges)
    if cfg.evaluate.baselines:
        metrics = with_comparison(metrics, [m.name for m in cfg.methods], costs(ctx))
    with open_ledger(ctx) as ledger:
        calibration = calibrate(ctx, rows, judges, ledger)
    warnings = (*notes, *metrics.warnings)
    metrics = metrics.model_copy(
        update={"teacher_student_win_rate": rates, "calibration": calibration, "warnings": warnings}
    )
    write_answers(run / "eval/answers.jsonl", rows, answers)
    write_judgements(run / "eval/judgements.parquet", [*judgements, *more])
    metrics.write(run.path)
    return {"rows": len(rows), "judgements": len(judgements) + len(more)}


def _teacher_against_student(ctx: Context, judges: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """The teacher-student win rate on D: every teacher answer meets every student answer to its prompt."""
    from plad.evaluate.stats import Bootstrap
    from plad.evaluate.winrate import judge_pairs

    cfg = ctx.config
    teacher = recorded_on_distill(ctx, "teacher", cfg.generate.samples)
    student = recorded_on_distill(ctx, "student_sft", cfg.student_samples)
    met = [
        (example, chosen.text, rejected.text)
        for example in ctx.examples("distill")
        for chosen in teacher[example.id]
        for rejected in student[example.id]
        if {chosen.outcome, rejected.outcome} <= ANSWERED
    ]
    examples, chosen, rejected = (list(column) for column in zip(*met, strict=True))
    bootstrap = Bootstrap(cfg.evaluate.bootstrap, cfg.run.seed)
    rates, judgements = judge_pairs(examples, chosen, rejected, judges, bootstrap=bootstrap)
    for judge, rate in rates.items():
        if rate.value is not None and rate.low is not None and rate.high is not None and rate.low <= 0.5:
            log.warning(
                "judge %s does not find the teacher better than the student on D: it wins %.0f %% [%.0f, %.0f] of %d "
                "prompts, so the pairs teach little; use a stronger teacher or a smaller student",
                *(judge, 100 * rate.value, 100 * rate.low, 100 * rate.high, rate.n),
            )
    return rates, judgements
