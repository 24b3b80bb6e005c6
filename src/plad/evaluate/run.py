"""Evaluation of systems on a test set: win rates against the human target, ROUGE, text statistics, differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.errors import DataError
from plad.evaluate.stats import METHOD, SMALL, estimate, paired_difference
from plad.evaluate.text import WORDS, count_words, text_statistics
from plad.evaluate.winrate import Judged, points_by_prompt, win_rate
from plad.judges import Judge
from plad.judges.rouge import METRICS, TOKENIZER, Rouge
from plad.records import Example, Generation, Judgement

SCHEMA = 1
TARGET, TEACHER, SFT, STUDENT = "target", "teacher", "student_sft", "student"
RULES = {
    "win_rate": "share of prompts on which the judge prefers the answer to the human target; ties count half; rows "
    "without a target, or that the judge can't judge, are counted as unjudged and left out",
    "teacher_student_win_rate": "share of distillation prompts on which the judge prefers the teacher's answer to the "
    "fine-tuned student's",
    "rouge": "F1 against the best reference, each metric on its own; systems meet all references, the target meets "
    "the others and only where there are others, so its figures are a little low; a text without words scores 0",
    "words": WORDS,
}

Values = dict[str, float]  # example id -> value


def evaluate_systems(
    examples: Sequence[Example],
    answers: Mapping[str, Mapping[str, Generation]],
    judges: Sequence[Judge],
    *,
    bootstrap: int = 10_000,
    seed: int = 0,
    stemmer: bool = False,
    rouge: bool = True,
) -> tuple[dict[str, Any], list[Judgement]]:
    """Evaluate systems side by side.

    Args:
        examples: N test prompts; the first reference is the target.
        answers: system -> example id -> its answer. `target` is added where the data has targets.
        judges: win rates are given for each.
        bootstrap: resamples over prompts.
        seed: of all resampling.
        stemmer: Porter-stem English words before ROUGE.
        rouge: whether to compute ROUGE.

    Returns:
        The contents of metrics.json, and every judgement behind it.

    Raises:
        DataError: a system lacks an answer, is called `target`, or an id occurs twice.
    """
    generations = _in_order(examples, answers)
    texts = {system: [g.text for g in rows] for system, rows in generations.items()}
    options = {"resamples": bootstrap, "seed": seed}
    scorer = Rouge(stemmer=stemmer) if rouge else None
    values: dict[str, dict[str, Values]] = {  # system -> metric -> values
        system: {**_rouge(scorer, examples, rows), "words": _by_id(examples, map(count_words, rows))}
        for system, rows in texts.items()
    }
    systems: dict[str, dict[str, Any]] = {}
    if any(e.target is not None for e in examples):
        values[TARGET] = _target_values(scorer, examples)
        systems[TARGET] = {"win_rate": {}, **_estimates(values[TARGET], **options)}
    for system, rows in generations.items():
        statistics = text_statistics(rows, generations.get(SFT) if system != SFT else None, **options)
        systems[system] = {"win_rate": {}, **_estimates(values[system], **options), **statistics}

    points: dict[str, dict[str, Values]] = {system: {} for system in texts}  # system -> judge -> points
    kept: list[Judgement] = []
    for judge in judges:
        judged = Judged(judge, examples)
        for system, rows in texts.items():
            found = judged.against_target(system, rows)
            systems[system]["win_rate"][judge.name] = win_rate(found, **options).to_json()
            points[system][judge.name] = points_by_prompt(found)
            kept += [j for j in found if j is not None]

    metrics = {
        "schema": SCHEMA,
        "n": len(examples),
        "systems": systems,
        "differences": {
            f"{a} - {b}": _differences(values[a], values[b], points[a], points[b], **options) for a, b in _pairs(texts)
        },
        "teacher_student_win_rate": {},
        "method": {
            **METHOD,
            **RULES,
            "seed": seed,
            "resamples": bootstrap,
            "tokenizer": TOKENIZER,
            "stemmer": stemmer,
            "judges": {judge.name: judge.describe() for judge in judges},
        },
    }
    return {**metrics, "warnings": _warnings(metrics)}, kept


def _in_order(
    examples: Sequence[Example], answers: Mapping[str, Mapping[str, Generation]]
) -> dict[str, list[Generation]]:
    if TARGET in answers:
        raise DataError("`target` is the human's answer, no system may be called so", where="answers")
    ids = [e.id for e in examples]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError("the id occurs twice in the test set", where=f"row {twice}", fix="give each row its own id")
    for system, rows in answers.items():
        missing = [i for i in ids if i not in rows]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(ids)} test rows have no answer of {system}",
                where=f"row {missing[0]}",
                fix="generate the missing answers first",
            )
    return {system: [rows[i] for i in ids] for system, rows in answers.items()}


def _by_id(examples: Sequence[Example], values: Any) -> Values:
    return {e.id: float(v) for e, v in zip(examples, values, strict=True)}


def _rouge(scorer: Rouge | None, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Values]:
    if scorer is None:
        return {}
    best = {e.id: scorer.best(text, e.references) for e, text in zip(examples, texts, strict=True)}
    return {m: {i: scores[m] for i, scores in best.items() if scores is not None} for m in METRICS}


def _target_values(scorer: Rouge | None, examples: Sequence[Example]) -> dict[str, Values]:
    """The target against the other references; rows that have no others are left out."""
    rows = [e for e in examples if e.references]
    targets = [e.references[0] for e in rows]
    held_out = [Example(e.id, e.prompt, e.references[1:]) for e in rows]
    return {**_rouge(scorer, held_out, targets), "words": _by_id(rows, map(count_words, targets))}


def _array(values: Values) -> NDArray[np.float64]:
    return np.array(list(values.values()), dtype=np.float64)


def _estimates(values: Mapping[str, Values], *, resamples: int, seed: int) -> dict[str, Any]:
    return {
        metric: estimate(
            _array(v), resamples=resamples, seed=seed, bounds=None if metric == "words" else (0.0, 1.0)
        ).to_json()
        for metric, v in values.items()
    }


def _pairs(systems: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The student against every other system, and every further system against the fine-tuned student."""
    further = [s for s in systems if s not in (TEACHER, SFT, STUDENT)]
    order = [s for s in (SFT, TEACHER) if s in systems] + further
    ours = [(STUDENT, other) for other in order] if STUDENT in systems else []
    return ours + ([(s, SFT) for s in further] if SFT in systems else [])


def _differences(
    a: Mapping[str, Values],
    b: Mapping[str, Values],
    a_points: Mapping[str, Values],
    b_points: Mapping[str, Values],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    def paired(ours: Values, theirs: Values, bounds: tuple[float, float] | None) -> dict[str, Any]:
        both = [i for i in ours if i in theirs]
        x, y = np.array([ours[i] for i in both]), np.array([theirs[i] for i in both])
        return {"p": None, **paired_difference(x, y, resamples=resamples, seed=seed, bounds=bounds).to_json()}

    return {
        "win_rate": {judge: paired(a_points[judge], b_points[judge], (-1.0, 1.0)) for judge in a_points},
        **{m: paired(a[m], b[m], None if m == "words" else (-1.0, 1.0)) for m in a},
    }


def _warnings(metrics: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if metrics["n"] < SMALL:
        found.append(f"only {metrics['n']} test prompts: intervals are rough below {SMALL}")
    for judge, facts in metrics["method"]["judges"].items():
        rates = [s["win_rate"][judge] for s in metrics["systems"].values() if judge in s["win_rate"]]
        if rates and rates[0]["n"] == 0:
            needs = "a second reference" if facts["type"] == "reference" else "a target"
            found.append(f"judge {judge} could judge no row: no row has {needs}")
        elif rates and rates[0]["unjudged"]:
            found.append(f"judge {judge} could not judge {rates[0]['unjudged']} of {metrics['n']} rows")
        if facts.get("truncated"):
            found.append(f"judge {judge} saw {facts['truncated']} of {facts['scored']} inputs cut off")
    return found
