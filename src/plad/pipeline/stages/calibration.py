"""Calibration of the student's likelihoods before and after distillation, on held-out prompts."""

import gc
import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plad.answers.fill import recorded
from plad.answers.ledger import Ledger
from plad.answers.question import Sampling
from plad.evaluate.likelihood_calibration import METHOD, calibration_change
from plad.evaluate.likelihoods import gather, judged, likelihoods
from plad.evaluate.metrics import CalibrationChange, CalibrationFigures
from plad.evaluate.stats import Bootstrap
from plad.judges.base import Judge, ScoringJudge
from plad.pipeline.engines import answer_set, engine_for, fill, missing_answers, policy_of
from plad.pipeline.resources import Resources
from plad.records import Example, Generation
from plad.train.run import GPU_MAX_TOKENS

log = logging.getLogger("plad")

BEFORE, AFTER = "student_sft", "student"


def calibrate(
    resources: Resources, rows: list[Example], judges: Sequence[Judge], ledger: Ledger
) -> CalibrationFigures | None:
    """`calibration` of metrics.json; None where it is switched off.

    The fine-tuned student and the teacher answer every prompt several times; the texts are scored under the student as
    it was and as it is, and their quality by every judge that scores texts.
    """
    section = resources.config.evaluate.calibration
    if section is None:
        return None
    rows = rows[: section.rows]
    by_default = section.samples if resources.config.teacher.local else 0
    samples = {
        BEFORE: section.samples,
        "teacher": by_default if section.teacher_samples is None else section.teacher_samples,
    }
    answers: dict[str, dict[str, list[Generation]]] = {}
    for system, n in samples.items():
        sampling = Sampling(section.temperature, resources.config.evaluation_max_new_tokens, n)
        answers[system] = _sampled(resources, system, rows, sampling, ledger) if n else {}
    texts, left_out = gather(rows, answers[BEFORE], answers["teacher"])
    likelihood: dict[str, dict[str, NDArray[np.float64]]] = {}
    for model in (BEFORE, AFTER):
        policy = policy_of(resources, model)
        max_tokens = None if policy.device.type == "cpu" else GPU_MAX_TOKENS
        likelihood[model] = likelihoods(policy, rows, texts, max_tokens=max_tokens)
        del policy
        gc.collect()
    bootstrap = Bootstrap(resources.config.evaluate.bootstrap, resources.config.run.seed)
    by_judge: dict[str, CalibrationChange] = {}
    for judge in judges:
        if not isinstance(judge, ScoringJudge):
            continue
        by_model = judged(judge, rows, texts, likelihood)
        before, after = by_model[BEFORE], by_model[AFTER]
        change = calibration_change(before, after, bootstrap)
        if answers["teacher"]:
            ours_before, ours_after = ([p.of_its_own() for p in prompts] for prompts in (before, after))
            change = change.model_copy(update={"own": calibration_change(ours_before, ours_after, bootstrap)})
        by_judge[judge.name] = change
    return CalibrationFigures(
        prompts=len(texts),
        texts=sum(map(len, texts.values())),
        left_out=left_out,
        samples=samples,
        temperature=section.temperature,
        writers=tuple(system for system, given in answers.items() if given),
        judges=by_judge,
        method=METHOD,
    )


def _sampled(
    resources: Resources, system: str, rows: list[Example], sampling: Sampling, ledger: Ledger
) -> dict[str, list[Generation]]:
    """A system's answers by example; none where its file of answers lacks some."""
    engine = engine_for(resources, system, ledger)
    if missing_answers(engine, rows) is not None:
        return {}
    answers = answer_set(resources, system, sampling)
    fill(resources, engine, rows, len(rows), answers, ledger)
    return recorded(rows, answers, ledger)
