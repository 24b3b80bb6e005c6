"""Evaluate all systems on the test rows."""

import gc
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from plad.answers.fill import recorded
from plad.answers.question import Sampling
from plad.config.models import ModelSection
from plad.errors import PolicyError
from plad.evaluate.deciding import with_comparison
from plad.evaluate.files import write_answers, write_judgements
from plad.evaluate.metrics import ModelFacts, WinRate
from plad.evaluate.run import evaluate_systems
from plad.evaluate.stats import Bootstrap
from plad.evaluate.winrate import judge_pairs
from plad.judges.base import Judge, open_judges
from plad.pipeline.engines import (
    answer_set,
    engine_for,
    fill,
    judge_resources,
    missing_answers,
    open_ledger,
    recorded_on_distill,
    served_by_others,
)
from plad.pipeline.resources import Resources
from plad.pipeline.stage import Counts, Inputs
from plad.pipeline.stages.baselines import costs
from plad.pipeline.stages.calibration import calibrate
from plad.policy.folder import model_size
from plad.policy.resolve import licence_of, local_folder
from plad.records import ANSWERED, Example, Generation, Judgement

log = logging.getLogger("plad")


def inputs(resources: Resources) -> Inputs:
    """Judges, and how answers are sampled and measured."""
    config = resources.config
    return {
        "evaluate": config.evaluate.shaping(apart=("judges", "baselines")),
        "judges": [j.inputs() for j in resources.judge_sections()],
        "max_new_tokens": config.evaluation_max_new_tokens,
    }


def run(resources: Resources, inputs: Inputs) -> Counts:
    """Score target, teacher, SFT student, distilled student and baselines on the test rows."""
    config, run_dir, section = resources.config, resources.run, resources.config.evaluate
    rows = resources.examples("test")[: section.limit]
    answers, notes = _test_answers(resources, rows)
    judges = open_judges(resources.judge_sections(), judge_resources(resources))
    bootstrap = Bootstrap(section.bootstrap, config.run.seed)
    metrics, judgements = evaluate_systems(
        rows, answers, judges, bootstrap=bootstrap, stemmer=section.stemmer, rouge=section.rouge
    )
    rates, more = _teacher_against_student(resources, judges, bootstrap)
    if section.baselines:
        metrics = with_comparison(metrics, [m.name for m in config.methods], costs(resources))
    with open_ledger(resources) as ledger:
        calibration = calibrate(resources, rows, judges, ledger)
    warnings = (*notes, *metrics.warnings)
    found = {"teacher_student_win_rate": rates, "calibration": calibration, "models": _models(resources)}
    metrics = metrics.model_copy(update={**found, "warnings": warnings})
    write_answers(run_dir / "eval/answers.jsonl", rows, answers)
    write_judgements(run_dir / "eval/judgements.parquet", [*judgements, *more])
    metrics.write(run_dir.path)
    return {"rows": len(rows), "judgements": len(judgements) + len(more)}


def _models(resources: Resources) -> dict[str, ModelFacts]:
    """What teacher and student are, as far as their files are here."""
    teacher, local = resources.teacher, resources.config.teacher.local
    student = _facts(resources.config.student.model, resources.run / "student")
    facts = {"student": student.model_copy(update={"licence": _licence(resources.student)})}
    if not local:
        return {"teacher": ModelFacts(name=teacher.model), **facts}
    folder = resources.run / "sft/teacher" if teacher.sft else local_folder(teacher.model, teacher.revision)
    return {"teacher": _facts(resources.config.teacher.model, folder), **facts}


def _licence(section: ModelSection) -> str | None:
    """Of the base model; None also where that is no longer here: the student doesn't need it."""
    try:
        base = local_folder(section.model, section.revision)
    except PolicyError:
        return None
    return None if base is None else licence_of(base)


def _facts(name: str, folder: Path | None) -> ModelFacts:
    try:
        size = None if folder is None else model_size(folder)
    except (PolicyError, OSError, ValueError) as e:
        log.warning("the size of %s is not known: %s", name, e)
        size = None
    return ModelFacts(name=name, **({} if size is None else asdict(size)))


def _test_answers(resources: Resources, rows: list[Example]) -> tuple[dict[str, dict[str, Generation]], list[str]]:
    """The answers of all systems on the test rows, and what a reader must know of them."""
    config = resources.config
    sampling = Sampling(config.evaluate.temperature, config.evaluation_max_new_tokens, 1)
    answers: dict[str, dict[str, Generation]] = {}
    notes: list[str] = []
    with open_ledger(resources) as ledger:
        for system in ("teacher", "student_sft", "student", *(m.name for m in config.methods)):
            engine = engine_for(resources, system, ledger)
            lacking = missing_answers(engine, rows)
            if lacking:
                notes.append(f"{system} is left out: {lacking}")
                log.warning(notes[-1])
                continue
            asked = answer_set(resources, system, sampling)
            fill(resources, engine, rows, len(rows), asked, ledger)
            answers[system] = {i: given[0] for i, given in recorded(rows, asked, ledger).items()}
            del engine
            gc.collect()
        notes += served_by_others(resources, ledger)
    return answers, notes


def _teacher_against_student(
    resources: Resources, judges: Sequence[Judge], bootstrap: Bootstrap
) -> tuple[dict[str, WinRate], list[Judgement]]:
    """The teacher-student win rate on D: every teacher answer meets every student answer to its prompt."""
    config = resources.config
    teacher = recorded_on_distill(resources, "teacher", config.generate.samples)
    student = recorded_on_distill(resources, "student_sft", config.student_samples)
    meetings = [
        (example, chosen.text, rejected.text)
        for example in resources.examples("distill")
        for chosen in teacher[example.id]
        for rejected in student[example.id]
        if {chosen.outcome, rejected.outcome} <= ANSWERED
    ]
    examples, chosen, rejected = zip(*meetings, strict=True)
    rates, judgements = judge_pairs(examples, chosen, rejected, judges, bootstrap=bootstrap)
    for judge, rate in rates.items():
        if rate.value is not None and rate.low is not None and rate.high is not None and rate.low <= 0.5:
            log.warning(
                "judge %s does not find the teacher better than the student on D: it wins %.0f %% [%.0f, %.0f] of %d "
                "prompts, so the pairs teach little; use a stronger teacher or a smaller student",
                *(judge, 100 * rate.value, 100 * rate.low, 100 * rate.high, rate.n),
            )
    return rates, judgements
