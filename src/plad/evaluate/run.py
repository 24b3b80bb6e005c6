"""Evaluation of systems on a test set: win rates against the human target, ROUGE, text statistics, differences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plad.errors import DataError
from plad.evaluate import agreement, lengths, ngrams
from plad.evaluate.stats import METHOD, SMALL, estimate, paired_difference, power, sign_test_p
from plad.evaluate.text import WORDS, count_words, outcome_shares
from plad.evaluate.winrate import Judged, points_by_prompt, win_rate
from plad.judges.base import Judge
from plad.judges.rouge import METRICS, TOKENIZER, Rouge
from plad.records import Example, Generation, Judgement

SCHEMA = 1
POSITION_BIAS = 0.2  # above this share of verdicts that order decides, a reader is warned
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
    texts = {system: {g.example_id: g.text for g in rows} for system, rows in generations.items()}
    options = {"resamples": bootstrap, "seed": seed}
    values = _values(examples, texts, Rouge(stemmer=stemmer) if rouge else None)
    systems = _text_figures(examples, generations, texts, values, **options)
    by_length = _ByLength(values, **options)
    points, kept = _judge(examples, texts, judges, systems, by_length, **options)
    metrics = {
        "schema": SCHEMA,
        "n": len(examples),
        "systems": systems,
        "differences": {
            f"{a} - {b}": _differences(a, b, values, points, by_length, **options) for a, b in _pairs(texts)
        },
        "teacher_student_win_rate": {},
        "agreement": agreement.agreements(kept, **options),
        "method": {
            **METHOD,
            **(agreement.METHOD if len(judges) > 1 else {}),
            **lengths.METHOD,
            **ngrams.METHOD,
            **RULES,
            "seed": seed,
            "resamples": bootstrap,
            "tokenizer": TOKENIZER,
            "stemmer": stemmer,
            "judges": {judge.name: judge.describe() for judge in judges},
        },
    }
    return {**metrics, "warnings": _warnings(metrics)}, kept


def _values(
    examples: Sequence[Example], texts: Mapping[str, Mapping[str, str]], scorer: Rouge | None
) -> dict[str, dict[str, Values]]:
    """ROUGE and words of every text: system -> metric -> values; the target's too, where there are targets."""
    values: dict[str, dict[str, Values]] = {}
    if any(e.references for e in examples):
        values[TARGET] = _target_values(scorer, examples)
    for system, by_id in texts.items():
        words = {i: float(count_words(text)) for i, text in by_id.items()}
        values[system] = {**_rouge(scorer, examples, by_id.values()), "words": words}
    return values


def _text_figures(
    examples: Sequence[Example],
    generations: Mapping[str, Sequence[Generation]],
    texts: Mapping[str, Mapping[str, str]],
    values: Mapping[str, Mapping[str, Values]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """`systems` of metrics.json, still without win rates: ROUGE, what the texts are made of, how answers ended."""
    targets = {e.id: e.references[0] for e in examples if e.references}
    statistics = ngrams.TextStatistics(
        {e.id: e.prompt for e in examples},
        (t for rows in texts.values() for t in rows.values()),
        resamples=resamples,
        seed=seed,
    )
    systems: dict[str, dict[str, Any]] = {
        system: {
            "win_rate": {},
            **_estimates(v, resamples=resamples, seed=seed),
            **statistics.of(texts.get(system, targets)),
        }
        for system, v in values.items()
    }
    for system, rows in generations.items():
        systems[system] |= outcome_shares(rows, generations.get(SFT) if system != SFT else None)
    return systems


def _judge(
    examples: Sequence[Example],
    texts: Mapping[str, Mapping[str, str]],
    judges: Sequence[Judge],
    systems: Mapping[str, dict[str, Any]],
    by_length: "_ByLength",
    *,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Values]], list[Judgement]]:
    """Write every system's win rates into `systems`; returns points by system, judge and prompt, and the judgements."""
    points: dict[str, dict[str, Values]] = {system: {} for system in texts}
    kept: list[Judgement] = []
    for judge in judges:
        judged = Judged(judge, examples)
        for system, by_id in texts.items():
            found = judged.against_target(system, list(by_id.values()))
            won = points[system][judge.name] = points_by_prompt(found)
            rate = win_rate(found, resamples=resamples, seed=seed).to_json()
            systems[system]["win_rate"][judge.name] = rate | by_length.rate(system, won)
            kept += [j for j in found if j is not None]
    return points, kept


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


def _rouge(scorer: Rouge | None, examples: Sequence[Example], texts: Iterable[str]) -> dict[str, Values]:
    if scorer is None:
        return {}
    best = {e.id: scorer.best(text, e.references) for e, text in zip(examples, texts, strict=True)}
    return {m: {i: scores[m] for i, scores in best.items() if scores is not None} for m in METRICS}


def _target_values(scorer: Rouge | None, examples: Sequence[Example]) -> dict[str, Values]:
    """The target against the other references; rows that have no others are left out."""
    rows = [e for e in examples if e.references]
    targets = [e.references[0] for e in rows]
    held_out = [Example(e.id, e.prompt, e.references[1:]) for e in rows]
    return {**_rouge(scorer, held_out, targets), "words": {e.id: float(count_words(e.references[0])) for e in rows}}


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


class _ByLength:
    """What length has to do with the win rates; words of every answer are known, those of the targets too."""

    def __init__(self, values: Mapping[str, Mapping[str, Values]], *, resamples: int, seed: int) -> None:
        self._words = {system: v["words"] for system, v in values.items()}
        answers = [n for system, words in self._words.items() if system != TARGET for n in words.values()]
        self._edges = lengths.length_edges(answers)
        self._resamples, self._seed = resamples, seed

    def _extra(self, system: str, points: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points, and words of the answer less words of the target."""
        own, target = self._words[system], self._words.get(TARGET, {})
        return _array(points), np.array([own[i] - target[i] for i in points], dtype=np.float64)

    def rate(self, system: str, points: Values) -> dict[str, Any]:
        """Of one system's win rate."""
        return {
            "length_controlled": lengths.length_controlled(
                *self._extra(system, points), resamples=self._resamples, seed=self._seed
            ),
            "by_length": lengths.by_length(
                points, self._words[system], self._edges, resamples=self._resamples, seed=self._seed
            ),
        }

    def difference(self, a: str, b: str, ours: Values, theirs: Values) -> dict[str, Any]:
        """Of one system's win rate less another's."""
        both = [i for i in ours if i in theirs]
        ours, theirs = ({i: points[i] for i in both} for points in (ours, theirs))
        extra = (self._extra(a, ours), self._extra(b, theirs))
        return {
            "length_controlled": lengths.length_controlled_difference(
                *extra, resamples=self._resamples, seed=self._seed
            ),
            "by_length": lengths.by_length(
                ours, self._words[a], self._edges, against=theirs, resamples=self._resamples, seed=self._seed
            ),
        }


def _differences(
    a: str,
    b: str,
    values: Mapping[str, Mapping[str, Values]],
    points: Mapping[str, Mapping[str, Values]],
    by_length: _ByLength,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    def paired(ours: Values, theirs: Values, bounds: tuple[float, float] | None) -> dict[str, Any]:
        both = [i for i in ours if i in theirs]
        x, y = np.array([ours[i] for i in both]), np.array([theirs[i] for i in both])
        found = paired_difference(x, y, resamples=resamples, seed=seed, bounds=bounds).to_json()
        return {"p": None, **found, "sign_test_p": sign_test_p(x - y), "power": power(x - y)}

    return {
        "win_rate": {
            judge: paired(won, points[b][judge], (-1.0, 1.0)) | by_length.difference(a, b, won, points[b][judge])
            for judge, won in points[a].items()
        },
        **{m: paired(v, values[b][m], None if m == "words" else (-1.0, 1.0)) for m, v in values[a].items()},
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
        bias = (facts.get("position_bias") or {}).get("share")
        if bias is not None and bias > POSITION_BIAS:
            found.append(f"judge {judge}: {bias:.0%} of its comparisons came out by order, and count as ties")
        if facts.get("truncated"):
            found.append(f"judge {judge} saw {facts['truncated']} of {facts['scored']} inputs cut off")
    return found
