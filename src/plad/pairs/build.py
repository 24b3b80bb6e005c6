"""Preference pairs: the teacher's answer is chosen and the student's rejected (Eq. 3), or as a scorer says."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

from plad.config.pairs import PairsSection, SelectRso
from plad.data.split import nested_share
from plad.judges.base import Comparison, Judge, compare_scores
from plad.pairs.candidates import Answer, Candidates, judged, usable_answers, without_teacher
from plad.pairs.selection import accepted, best_worst, score_of, stream
from plad.records import STUDENT_SFT, TEACHER, Example, Generation, Pair, Verdict, pair_id

Answers = Mapping[str, Sequence[Generation]]


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """What the scorer says of a teacher's answer against a student's; None where it can't judge."""

    example_id: str
    student_text: str
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of all prompts.

    Attributes:
        pairs: in order of examples.
        counts: candidates, pairs, swapped, dropped_* by reason.
        scored: the pairs that the scorer ordered.
    """

    pairs: list[Pair] = field(default_factory=list[Pair])
    counts: Counter[str] = field(default_factory=Counter[str])
    scored: list[ScoredPair] = field(default_factory=list[ScoredPair])


class Fate(StrEnum):
    """What becomes of a pair; all but the first two are reasons to drop it."""

    KEEP = "keep"
    SWAP = "swap"
    TIE = "tie"
    UNSURE = "unsure"
    WRONG = "wrong"


def fate(comparison: Comparison | None, rules: PairsSection) -> Fate:
    """What the rules make of a pair whose teacher's answer was compared with the student's; unjudged it stays as it is.

    Source: PLaD, section 5.3 (a reward model re-ranks each pair).
    """
    if comparison is None:
        return Fate.KEEP
    if comparison.verdict is Verdict.TIE:
        return Fate.KEEP if rules.ties == "keep" else Fate.TIE
    if abs(comparison.score - comparison.opponent_score) < rules.confidence.margin:
        return Fate.KEEP if rules.confidence.below == "keep" else Fate.UNSURE
    if comparison.verdict is Verdict.WIN:
        return Fate.KEEP
    return {"swap": Fate.SWAP, "keep": Fate.KEEP, "drop": Fate.WRONG}[rules.confidence.wrong]


def build_pairs(
    examples: Sequence[Example],
    teacher: Answers,
    student: Answers,
    rules: PairsSection,
    *,
    scorer: Judge | None = None,
    seed: int = 0,
) -> Pairing:
    """Prefer the teacher's answers to the student's answers to the same prompt.

    An answer that is left out takes all its pairs with it; so does a student answer that the teacher gave too, and
    an answer given before. The scorer sees the answers that are left: of every prompt where it selects them, else of
    `real_share` of the prompts, whose pairs it orders.

    Args:
        teacher, student: answers by example id, in order of sample number.
        scorer: the judge behind `rules.scorer`; needed where the rules need one.
        seed: of the choice of prompts, and of rejection sampling.

    Raises:
        ConfigError: answers are to be selected by a scorer that only compares two.

    Source: PLaD, Eq. 3 and Algorithm 1, step 2; section 5.3 for real preferences.
    """
    result = Pairing()
    real = {e.id for e in nested_share(examples, rules.real_share, seed, "real preferences")}
    used: Answers = {} if without_teacher(rules) else teacher
    prompts = [
        usable_answers(e, used.get(e.id, ()), student[e.id], rules.drop, e.id in real, result.counts) for e in examples
    ]
    if rules.scores:
        assert scorer is not None
        prompts = judged(prompts, rules, scorer)
    result.pairs.extend(pair for p in prompts for pair in _pairs_of(p, rules, seed, result))
    result.counts["pairs"] = len(result.pairs)
    if rules.real_share > 0:
        result.counts["real_prompts"] = len(real)
    return result


def _pairs_of(prompt: Candidates, rules: PairsSection, seed: int, result: Pairing) -> Iterator[Pair]:
    select, counts = rules.select, result.counts
    if isinstance(select, SelectRso):
        kept = accepted(prompt, select, seed, counts)
        if select.opponent == "student":
            yield from _student_pairs(prompt, kept, rules, seed, counts)
            return
        matches = list(product(prompt.teacher, kept))
    elif select.type == "best_worst":
        matches = best_worst(prompt)
    else:
        matches = list(product(prompt.teacher, prompt.student))
    left_out = len(prompt.teacher) * len(prompt.student) - len(matches)
    if left_out:
        counts["dropped_not_selected" if matches else "dropped_unjudged"] += left_out
    for teacher, student in matches:
        pair = _ordered(prompt, teacher, student, rules, result)
        if pair is not None:
            yield pair


def _student_pairs(
    prompt: Candidates, kept: list[Answer], rules: PairsSection, seed: int, counts: Counter[str]
) -> Iterator[Pair]:
    """Accepted answers paired at random, each at most once, the better one chosen; ties make no pair."""
    shuffled = list(kept)
    stream(seed, prompt.example.id, "pair").shuffle(shuffled)
    counts["rso_unpaired"] += len(shuffled) % 2
    for a, b in zip(shuffled[::2], shuffled[1::2], strict=False):
        counts["candidates"] += 1
        if score_of(a) == score_of(b):
            counts["dropped_tie"] += 1
        elif abs(score_of(a) - score_of(b)) < rules.confidence.margin and rules.confidence.below == "drop":
            counts["dropped_unsure"] += 1
        else:
            better, worse = (a, b) if score_of(a) > score_of(b) else (b, a)
            yield _pair(prompt.example, better, worse)


def _ordered(prompt: Candidates, teacher: Answer, student: Answer, rules: PairsSection, result: Pairing) -> Pair | None:
    """The pair in its order; None where it is dropped."""
    if not prompt.real:
        return _pair(prompt.example, teacher, student)
    if prompt.compared is not None:
        compared = prompt.compared[teacher.generation.sample, student.generation.sample]
        both = None if compared is None else (compared.score, compared.opponent_score)
    else:
        texts = ([teacher.generation.text], [student.generation.text])
        (compared,) = compare_scores(*texts, [teacher.score], [student.score])
        both = None
    result.scored.append(ScoredPair(prompt.example.id, student.generation.text, compared))
    decision = fate(compared, rules)
    if decision is Fate.KEEP:
        return _pair(prompt.example, teacher, student, both)
    if decision is Fate.SWAP:
        result.counts["swapped"] += 1
        return _pair(prompt.example, student, teacher, both and (both[1], both[0]))
    result.counts[f"dropped_{decision}"] += 1
    return None


def _pair(example: Example, chosen: Answer, rejected: Answer, scores: tuple[float, float] | None = None) -> Pair:
    """A pair with the scores of its texts (`quality`), or what a pairwise judge said of the two (`judged`)."""
    a, b = chosen.generation, rejected.generation
    if chosen.source == rejected.source:
        name = f"s{a.sample}-s{b.sample}"
    else:
        name = f"{a.sample}-{b.sample}" if chosen.source == TEACHER else f"{b.sample}-{a.sample}"
    values: dict[str, tuple[float, float]] = {} if scores is None else {"judged": scores}
    if chosen.score is not None and rejected.score is not None:
        values["quality"] = (chosen.score, rejected.score)
    return Pair(
        id=pair_id(example.id, name),
        prompt=example.prompt,
        chosen=a.text,
        rejected=b.text,
        chosen_source=chosen.source,
        rejected_source=rejected.source,
        chosen_token_ids=a.token_ids if chosen.source == STUDENT_SFT else (),
        rejected_token_ids=b.token_ids if rejected.source == STUDENT_SFT else (),
        values=values,
    )
