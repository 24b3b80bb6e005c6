"""Candidates for pairs: the answers to each prompt that no rule leaves out, and what a scorer says of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import product

from plad.config.pairs import DropRules, PairsSection, SelectRso
from plad.errors import ConfigError
from plad.judges.base import Comparison, Judge, PairwiseJudge, ScoringJudge
from plad.records import ANSWERED, STUDENT_SFT, TEACHER, Example, Generation, Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that may stand in a pair.

    Attributes:
        score: what the scorer said; None where it was not asked or can't judge.
    """

    source: str
    generation: Generation
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """The answers to a prompt that may be paired.

    Attributes:
        real: whether the scorer orders its pairs.
        compared: by sample numbers of teacher and student, where the scorer compares pairs and doesn't score texts.
    """

    example: Example
    teacher: list[Answer]
    student: list[Answer]
    real: bool
    compared: Mapping[tuple[int, int], Comparison | None] | None = None


def usable_answers(
    example: Example,
    teacher: Sequence[Generation],
    student: Sequence[Generation],
    rules: DropRules,
    real: bool,
    counts: Counter[str],
) -> Candidates:
    """Count the candidates of a prompt, and those that can't be used."""
    chosen = _usable(teacher, rules, watched=True)
    taken: set[str] = {a.text.strip() for a in teacher} if rules.identical else set()
    rejected = _usable(student, rules, watched=rules.truncated == "both", taken=taken)
    if not teacher:  # the student's answers meet each other: each that can't is counted once
        counts.update(f"dropped_{reason}" for _, reason in rejected if reason is not None)
    for (_, why_not_a), (_, why_not_b) in product(chosen, rejected):
        counts["candidates"] += 1
        reason = why_not_a or why_not_b
        if reason is not None:
            counts[f"dropped_{reason}"] += 1
    return Candidates(
        example,
        [Answer(TEACHER, a) for a, why_not in chosen if why_not is None],
        [Answer(STUDENT_SFT, b) for b, why_not in rejected if why_not is None],
        real,
    )


def _drop_reason(answer: Generation, rules: DropRules, *, watched: bool) -> str | None:
    if answer.outcome not in ANSWERED:
        return answer.outcome.value  # there is no text
    if rules.empty and answer.outcome is Outcome.EMPTY:
        return "empty"
    return "truncated" if watched and answer.outcome is Outcome.TRUNCATED else None


def _usable(
    answers: Sequence[Generation], rules: DropRules, *, watched: bool, taken: AbstractSet[str] = frozenset()
) -> list[tuple[Generation, str | None]]:
    """Each answer with the reason to leave it out, if there is one."""
    answered: list[tuple[Generation, str | None]] = []
    seen: set[str] = set()
    for answer in answers:
        text = answer.text.strip()
        reason = _drop_reason(answer, rules, watched=watched)
        if reason is None and text in taken:
            reason = "identical"
        if reason is None and text in seen:
            reason = "repeated"
        if reason is None:
            seen.add(text)
        answered.append((answer, reason))
    return answered


def without_teacher(rules: PairsSection) -> bool:
    """Whether the rules pair the student's answers with each other."""
    return isinstance(rules.select, SelectRso) and rules.select.opponent == "student"


def judged(prompts: Sequence[Candidates], rules: PairsSection, scorer: Judge) -> list[Candidates]:
    """The candidates with what the scorer says of those that the rules ask it about.

    Raises:
        ConfigError: answers are to be selected by a scorer that only compares two.
    """
    if not isinstance(scorer, ScoringJudge):
        return _compared(prompts, rules, scorer)
    scores = _scores(prompts, rules, scorer)
    return [_scored(p, scores) for p in prompts]


def _scores(
    prompts: Sequence[Candidates], rules: PairsSection, scorer: ScoringJudge
) -> dict[tuple[str, str], float | None]:
    """Scores by example id and text, of the texts whose score is used, each once.

    None of the answers is the target, so all references count.
    """
    examples = {p.example.id: p.example for p in prompts}
    teachers = [p for p in prompts if p.real or rules.select.type == "best_worst"]
    students = [p for p in prompts if p.real or rules.select.type != "all"]
    wanted = [(p, a) for p in teachers for a in p.teacher] + [(p, b) for p in students for b in p.student]
    asked = list(dict.fromkeys((p.example.id, answer.generation.text) for p, answer in wanted))
    rows = [examples[i] for i, _ in asked]
    scores = scorer.score(rows, [text for _, text in asked], [row.references for row in rows])
    return dict(zip(asked, scores, strict=True))


def _scored(prompt: Candidates, scores: Mapping[tuple[str, str], float | None]) -> Candidates:
    def scored(answers: Sequence[Answer]) -> list[Answer]:
        return [replace(a, score=scores.get((prompt.example.id, a.generation.text))) for a in answers]

    return replace(prompt, teacher=scored(prompt.teacher), student=scored(prompt.student))


def _compared(prompts: Sequence[Candidates], rules: PairsSection, scorer: PairwiseJudge) -> list[Candidates]:
    """Prompts with what a pairwise judge says of every pair of those that are real, all asked at once."""
    if rules.select.type != "all":
        raise ConfigError(
            f"{rules.select.type} needs a score of each answer, and {scorer.name} only compares two",
            where="pairs.select",
            fix="pairs.select: all\nor another pairs.scorer",
        )
    matches = [
        (p.example, a.generation, b.generation) for p in prompts if p.real for a, b in product(p.teacher, p.student)
    ]
    comparisons = scorer.compare(
        [e for e, _, _ in matches],
        [a.text for _, a, _ in matches],
        [b.text for _, _, b in matches],
        [e.references for e, _, _ in matches],
    )
    by_example: dict[str, dict[tuple[int, int], Comparison | None]] = {}
    for (example, a, b), comparison in zip(matches, comparisons, strict=True):
        by_example.setdefault(example.id, {})[a.sample, b.sample] = comparison
    return [replace(p, compared=by_example.get(p.example.id, {})) for p in prompts]
