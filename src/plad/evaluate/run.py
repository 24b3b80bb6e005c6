"""Evaluation of systems on a test set: win rates against the human target, ROUGE, text statistics, differences."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from plad.errors import DataError
from plad.evaluate import agreement, lengths, texts
from plad.evaluate.deciding import decision, warnings_of
from plad.evaluate.metrics import (
    SCHEMA,
    Difference,
    Estimate,
    HeadToHead,
    LengthControlled,
    Metrics,
    SystemDifference,
    SystemFigures,
    WinRate,
)
from plad.evaluate.stats import (
    DEFAULT,
    METHOD,
    Bootstrap,
    estimate,
    paired_difference,
    power,
    proportion,
    sign_test_p,
)
from plad.evaluate.texts import WORDS, count_words, outcome_shares
from plad.evaluate.winrate import Judged, judge_scores, points_by_prompt, win_rate
from plad.judges.base import Judge, ScoringJudge
from plad.judges.facts import JudgeFacts
from plad.judges.measure import most
from plad.judges.rouge import METRICS, TOKENIZER, Rouge
from plad.records import STUDENT, TARGET, TEACHER, Example, Generation, Judgement
from plad.records import STUDENT_SFT as SFT

RULES = {
    "win_rate": "share of prompts on which the judge prefers the answer to the human target; ties count half; rows "
    "without a target, or that the judge can't judge, are counted as unjudged and left out",
    "teacher_student_win_rate": "share of distillation prompts on which the judge prefers the teacher's answer to the "
    "fine-tuned student's",
    "rouge": "F1 against the best reference, each metric on its own; systems meet all references, the target meets "
    "the others and only where there are others, so its figures are a little low; a text without words scores 0",
    "words": WORDS,
}

AGAINST = (
    "win rate of one system against another, ties half, by a judge that can't compare most rows with the target; every "
    "reference counts, the target among them"
)

Values = dict[str, float]  # example id -> value


def evaluate_systems(
    examples: Sequence[Example],
    answers: Mapping[str, Mapping[str, Generation]],
    judges: Sequence[Judge],
    *,
    bootstrap: Bootstrap = DEFAULT,
    stemmer: bool = False,
    rouge: bool = True,
) -> tuple[Metrics, list[Judgement]]:
    """Evaluate systems side by side.

    Args:
        examples: N test prompts; the first reference is the target.
        answers: system -> example id -> its answer. `target` is added where the data has targets.
        judges: win rates are given for each.
        stemmer: Porter-stem English words before ROUGE.
        rouge: whether to compute ROUGE.

    Returns:
        The metrics, and every judgement behind them.

    Raises:
        DataError: a system lacks an answer, is called `target`, or an id occurs twice.
    """
    generations = _in_order(examples, answers)
    written = {system: {g.example_id: g.text for g in rows} for system, rows in generations.items()}
    values = _values(examples, written, Rouge(stemmer=stemmer) if rouge else None)
    by_length = _ByLength(values, bootstrap)
    rates, points, judgements = _judge(examples, written, judges, by_length, bootstrap)
    against, more = _against_each_other(examples, written, _blind(judges, rates, len(examples)), by_length, bootstrap)
    metrics = Metrics(
        version=SCHEMA,
        n=len(examples),
        systems=_systems(examples, generations, written, values, rates, bootstrap),
        differences={
            f"{a} - {b}": _differences(a, b, values, points, by_length, bootstrap).model_copy(update=against[a, b])
            for a, b in _pairs(written)
        },
        teacher_student_win_rate={},
        agreement=agreement.agreements(judgements, bootstrap),
        method={
            **METHOD,
            **(agreement.METHOD if len(judges) > 1 else {}),
            **lengths.METHOD,
            **texts.METHOD,
            **RULES,
            **({"against": AGAINST} if more else {}),
            "seed": bootstrap.seed,
            "resamples": bootstrap.resamples,
            "tokenizer": TOKENIZER,
            "stemmer": stemmer,
            "judges": {judge.name: _described(judge) for judge in judges},
        },
    )
    method = {**metrics.method, "decides": decision(metrics).measure.words}
    warnings = tuple(warnings_of(metrics, examples))
    return metrics.model_copy(update={"method": method, "warnings": warnings}), [*judgements, *more]


def _described(judge: Judge) -> dict[str, JsonValue]:
    """What a judge says of itself, and how often it obeyed an instruction in an answer."""
    told = _as_json(judge.describe())
    facts = JudgeFacts.of(told)
    obeys = proportion(facts.canaries_obeyed, facts.canaries)
    shown = obeys.model_dump(mode="json", include={"value", "low", "high", "n"})
    return {**told, "obeys": shown} if facts.canaries else told


def _as_json(facts: Mapping[str, object]) -> dict[str, JsonValue]:
    """As the file will hold it, whatever a judge says of itself."""
    return json.loads(json.dumps(facts, default=str))


def _values(
    examples: Sequence[Example], written: Mapping[str, Mapping[str, str]], scorer: Rouge | None
) -> dict[str, dict[str, Values]]:
    """ROUGE and words of every text: system -> metric -> values; the target's too, where there are targets."""
    values: dict[str, dict[str, Values]] = {}
    if any(e.references for e in examples):
        values[TARGET] = _target_values(scorer, examples)
    for system, by_id in written.items():
        words = {i: float(count_words(text)) for i, text in by_id.items()}
        values[system] = {**_rouge(scorer, examples, by_id.values()), "words": words}
    return values


def _systems(
    examples: Sequence[Example],
    generations: Mapping[str, Sequence[Generation]],
    written: Mapping[str, Mapping[str, str]],
    values: Mapping[str, Mapping[str, Values]],
    rates: Mapping[str, dict[str, WinRate]],
    bootstrap: Bootstrap,
) -> dict[str, SystemFigures]:
    """Win rates, ROUGE, what the texts are made of, and how answers ended."""
    targets = {e.id: e.references[0] for e in examples if e.references}
    prompts = {e.id: e.prompt for e in examples}
    statistics = texts.TextStatistics(prompts, (t for rows in written.values() for t in rows.values()), bootstrap)
    systems: dict[str, SystemFigures] = {}
    for system, by_metric in values.items():
        rows = generations.get(system)
        sft = generations.get(SFT) if system != SFT else None
        systems[system] = SystemFigures.model_validate(
            {
                "win_rate": rates.get(system, {}),
                **{metric: _mean(metric, v, bootstrap) for metric, v in by_metric.items()},
                **statistics.of(written.get(system, targets)),
                **({} if rows is None else outcome_shares(rows, sft)),
            }
        )
    return systems


def _judge(
    examples: Sequence[Example],
    written: Mapping[str, Mapping[str, str]],
    judges: Sequence[Judge],
    by_length: "_ByLength",
    bootstrap: Bootstrap,
) -> tuple[dict[str, dict[str, WinRate]], dict[str, dict[str, Values]], list[Judgement]]:
    """Win rates by system and judge; points by system, judge and prompt; the judgements."""
    rates: dict[str, dict[str, WinRate]] = {system: {} for system in written}
    points: dict[str, dict[str, Values]] = {system: {} for system in written}
    kept: list[Judgement] = []
    for judge in judges:
        judged = Judged(judge, examples)
        for system, by_id in written.items():
            judgements = judged.against_target(system, list(by_id.values()))
            won = points[system][judge.name] = points_by_prompt(judgements)
            rates[system][judge.name] = by_length.added(win_rate(judgements, bootstrap), system, won)
            kept += [j for j in judgements if j is not None]
    return rates, points, kept


def _blind(judges: Sequence[Judge], rates: Mapping[str, Mapping[str, WinRate]], rows: int) -> list[ScoringJudge]:
    """Judges that can't compare most rows with the target, but score an answer: comparing two costs nothing more."""
    return [
        judge
        for judge in judges
        if isinstance(judge, ScoringJudge) and rates and not all(most(r[judge.name].n, rows) for r in rates.values())
    ]


def _against_each_other(
    examples: Sequence[Example],
    written: Mapping[str, Mapping[str, str]],
    judges: Sequence[ScoringJudge],
    by_length: "_ByLength",
    bootstrap: Bootstrap,
) -> tuple[dict[tuple[str, str], dict[str, dict[str, HeadToHead]]], list[Judgement]]:
    """By pair of systems, what a `SystemDifference` says of one against the other; and the judgements."""
    found: dict[tuple[str, str], dict[str, dict[str, HeadToHead]]] = {pair: {} for pair in _pairs(written)}
    kept: list[Judgement] = []
    for judge in judges:
        scores = judge_scores(judge, examples, written)
        for a, b in found:
            judgements = scores.between(a, b)
            if not any(judgements):
                continue
            rate = win_rate(judgements, bootstrap)
            equal = by_length.between(a, b, points_by_prompt(judgements))
            of_pair = HeadToHead(**rate.to_json(), p=rate.sign_test_p, length_controlled=equal)
            found[a, b].setdefault("against", {})[judge.name] = of_pair
            kept += [j for j in judgements if j is not None]
    return found, kept


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


def _mean(metric: str, values: Values, bootstrap: Bootstrap) -> Estimate:
    return estimate(_array(values), bootstrap, bounds=None if metric == "words" else (0.0, 1.0))


def _pairs(systems: Iterable[str]) -> list[tuple[str, str]]:
    """The student against every other system, and every further system against the fine-tuned student."""
    systems = list(systems)
    further = [s for s in systems if s not in (TEACHER, SFT, STUDENT)]
    order = [s for s in (SFT, TEACHER) if s in systems] + further
    ours = [(STUDENT, other) for other in order] if STUDENT in systems else []
    return ours + ([(s, SFT) for s in further] if SFT in systems else [])


class _ByLength:
    """What length has to do with the win rates; words of every answer are known, those of the targets too."""

    def __init__(self, values: Mapping[str, Mapping[str, Values]], bootstrap: Bootstrap) -> None:
        self._words = {system: v["words"] for system, v in values.items()}
        answers = [n for system, words in self._words.items() if system != TARGET for n in words.values()]
        self._edges = lengths.length_edges(answers)
        self._bootstrap = bootstrap

    def _extra(self, system: str, points: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points, and words of the answer less words of the target."""
        words, target = self._words[system], self._words.get(TARGET, {})
        return _array(points), np.array([words[i] - target[i] for i in points], dtype=np.float64)

    def added(self, rate: WinRate, system: str, points: Values) -> WinRate:
        """A system's win rate, with what is left of it at equal length."""
        controlled = lengths.length_controlled(*self._extra(system, points), self._bootstrap)
        bins = lengths.by_length(points, self._words[system], self._edges, self._bootstrap)
        return rate.model_copy(update={"length_controlled": controlled, "by_length": bins})

    def between(self, a: str, b: str, points: Values) -> LengthControlled:
        """What is left at equal length of one system's win rate against another."""
        extra = [self._words[a][i] - self._words[b][i] for i in points]
        return lengths.length_controlled(_array(points), np.array(extra, dtype=np.float64), self._bootstrap)

    def compared(self, difference: Difference, a: str, b: str, ours: Values, theirs: Values) -> Difference:
        """The same of one system's win rate less another's."""
        both = [i for i in ours if i in theirs]
        ours, theirs = ({i: points[i] for i in both} for points in (ours, theirs))
        extra = (self._extra(a, ours), self._extra(b, theirs))
        controlled = lengths.length_controlled_difference(*extra, self._bootstrap)
        bins = lengths.by_length(ours, self._words[a], self._edges, self._bootstrap, against=theirs)
        return difference.model_copy(update={"length_controlled": controlled, "by_length": bins})


def _differences(
    a: str,
    b: str,
    values: Mapping[str, Mapping[str, Values]],
    points: Mapping[str, Mapping[str, Values]],
    by_length: _ByLength,
    bootstrap: Bootstrap,
) -> SystemDifference:
    def paired(ours: Values, theirs: Values, bounds: tuple[float, float] | None) -> Difference:
        both = [i for i in ours if i in theirs]
        x, y = np.array([ours[i] for i in both]), np.array([theirs[i] for i in both])
        difference = paired_difference(x, y, bootstrap, bounds=bounds)
        return difference.model_copy(update={"sign_test_p": sign_test_p(x - y), "power": power(x - y)})

    rates = {
        judge: by_length.compared(paired(won, points[b][judge], (-1.0, 1.0)), a, b, won, points[b][judge])
        for judge, won in points[a].items()
    }
    by_metric = {m: paired(v, values[b][m], None if m == "words" else (-1.0, 1.0)) for m, v in values[a].items()}
    return SystemDifference.model_validate({"win_rate": rates, **by_metric})
