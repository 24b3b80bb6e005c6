"""Preference pairs: the teacher's answer is chosen and the student's rejected (Eq. 3), or as a scorer says."""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from plad.config.pairs import PairsSection, SelectRso
from plad.data.split import nested_share
from plad.judges.base import Judge, compare_scores
from plad.pairs.candidates import STUDENT, TEACHER, Answer, Candidates, judged, usable_answers, without_teacher
from plad.pairs.preferences import Fate, Noise, fate
from plad.pairs.rso import accept
from plad.policy.prompt import PromptFormat
from plad.records import Example, Generation, Pair
from plad.scoring.layout import Group

Answers = Mapping[str, Sequence[Generation]]


def build_pairs(
    examples: Sequence[Example],
    teacher: Answers,
    student: Answers,
    rules: PairsSection,
    *,
    scorer: Judge | None = None,
    seed: int = 0,
) -> tuple[list[Pair], dict[str, Any]]:
    """Prefer the teacher's answers to the student's answers to the same prompt.

    An answer that is left out takes all its pairs with it; so does a student answer that the teacher gave too, and
    an answer given before. The scorer sees the answers that are left: of every prompt where it selects them, else of
    `real_share` of the prompts, whose pairs it orders.

    Args:
        teacher, student: answers by example id, in order of sample number.
        scorer: the judge behind `rules.scorer`; needed where the rules need one.
        seed: of the choice of prompts, and of rejection sampling.

    Returns:
        The pairs in order of examples, and counts: candidates, pairs, swapped, dropped_* by reason; where the scorer
        looked at pairs, `scored` and `wrong` (see `Noise.counts`).

    Raises:
        ConfigError: answers are to be selected by a scorer that only compares two.

    Source: PLaD, Eq. 3 and Algorithm 1, step 2; section 5.3 for real preferences.
    """
    counts: Counter[str] = Counter()
    real = {e.id for e in nested_share(examples, rules.real_share, seed, "real preferences")}
    met = {} if without_teacher(rules) else teacher
    prompts = [usable_answers(e, met.get(e.id, ()), student[e.id], rules.drop, e.id in real, counts) for e in examples]
    if rules.scores:
        assert scorer is not None
        prompts = judged(prompts, rules, scorer)
    noise = Noise()
    pairs = [pair for p in prompts for pair in _pairs_of(p, rules, seed, noise, counts)]
    counts["pairs"] = len(pairs)
    extra = {"real_prompts": len(real), **noise.counts()} if rules.real_share > 0 else {}
    return pairs, {**counts, **extra}


# -- which of them meet -------------------------------------------------------------------------------


def _pairs_of(prompt: Candidates, rules: PairsSection, seed: int, noise: Noise, counts: Counter[str]) -> list[Pair]:
    select = rules.select
    if isinstance(select, SelectRso):
        accepted = _accepted(prompt, select, seed, counts)
        if select.opponent == "student":
            return _student_pairs(prompt, accepted, rules, seed, counts)
        met = list(product(prompt.teacher, accepted))
    elif select.type == "best_worst":
        met = _best_worst(prompt)
    else:
        met = list(product(prompt.teacher, prompt.student))
    left_out = len(prompt.teacher) * len(prompt.student) - len(met)
    if left_out:
        counts["dropped_not_selected" if met else "dropped_unjudged"] += left_out
    ordered = (_ordered(prompt, a, b, rules, noise, counts) for a, b in met)
    return [pair for pair in ordered if pair is not None]


def _best_worst(prompt: Candidates) -> list[tuple[Answer, Answer]]:
    """The teacher's best against the student's worst; of equals the first, none where a side is unjudged."""
    teacher = [a for a in prompt.teacher if a.score is not None]
    student = [b for b in prompt.student if b.score is not None]
    if not teacher or not student:
        return []
    return [(max(teacher, key=_score), min(student, key=_score))]


def _score(answer: Answer) -> float:
    assert answer.score is not None
    return answer.score


def _accepted(prompt: Candidates, select: SelectRso, seed: int, counts: Counter[str]) -> list[Answer]:
    judged = [b for b in prompt.student if b.score is not None]
    counts["rso_usable"] += len(prompt.student)
    stream = _stream(seed, prompt.example.id, "accept")
    chosen = accept([_score(b) for b in judged], beta=select.beta, keep=select.keep, uniform=stream.random)
    counts["rso_judged"] += len(judged)
    counts["rso_accepted"] += len(chosen)
    return [judged[i] for i in chosen]


def _student_pairs(
    prompt: Candidates, accepted: list[Answer], rules: PairsSection, seed: int, counts: Counter[str]
) -> list[Pair]:
    """Accepted answers paired at random, each at most once, the better one chosen; ties make no pair."""
    shuffled = list(accepted)
    _stream(seed, prompt.example.id, "pair").shuffle(shuffled)
    pairs: list[Pair] = []
    counts["rso_unpaired"] += len(shuffled) % 2
    for a, b in zip(shuffled[::2], shuffled[1::2], strict=False):
        counts["candidates"] += 1
        if _score(a) == _score(b):
            counts["dropped_tie"] += 1
        elif abs(_score(a) - _score(b)) < rules.confidence.margin and rules.confidence.below == "drop":
            counts["dropped_unsure"] += 1
        else:
            better, worse = (a, b) if _score(a) > _score(b) else (b, a)
            pairs.append(_pair(prompt.example, better, worse))
    return pairs


def _stream(seed: int, example_id: str, purpose: str) -> random.Random:
    """A prompt's own random numbers: other prompts and their order don't move them."""
    return random.Random(int.from_bytes(hashlib.sha256(f"rso:{purpose}:{seed}:{example_id}".encode()).digest()[:8]))


# -- in which order -----------------------------------------------------------------------------------


def _ordered(
    prompt: Candidates, teacher: Answer, student: Answer, rules: PairsSection, noise: Noise, counts: Counter[str]
) -> Pair | None:
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
    noise.add(prompt.example.id, student.generation.text, compared)
    found = fate(compared, rules)
    if found is Fate.KEEP:
        return _pair(prompt.example, teacher, student, said=both)
    if found is Fate.SWAP:
        counts["swapped"] += 1
        return _pair(prompt.example, student, teacher, said=both and (both[1], both[0]))
    counts[f"dropped_{found}"] += 1
    return None


def _pair(example: Example, chosen: Answer, rejected: Answer, said: tuple[float, float] | None = None) -> Pair:
    """A pair with the scores of its texts (`quality`), or what a pairwise judge said of the two (`judged`)."""
    a, b = chosen.generation, rejected.generation
    if chosen.source == rejected.source:
        name = f"s{a.sample}-s{b.sample}"
    else:
        name = f"{a.sample}-{b.sample}" if chosen.source == TEACHER else f"{b.sample}-{a.sample}"
    values: dict[str, tuple[float, float]] = {} if said is None else {"judged": said}
    if chosen.score is not None and rejected.score is not None:
        values["quality"] = (chosen.score, rejected.score)
    return Pair(
        id=f"{example.id}#{name}",
        prompt=example.prompt,
        chosen=a.text,
        rejected=b.text,
        chosen_source=chosen.source,
        rejected_source=rejected.source,
        chosen_token_ids=a.token_ids if chosen.source == STUDENT else (),
        rejected_token_ids=b.token_ids if rejected.source == STUDENT else (),
        values=values,
    )


def by_example(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each example, by its id."""
    grouped: dict[str, list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault(pair.id.rpartition("#")[0], []).append(pair)
    return grouped


def pair_groups(
    pairs: Sequence[Pair], prompt_format: PromptFormat, references: Mapping[str, str] | None = None
) -> list[Group]:
    """What preference objectives train on: one group a prompt, its chosen texts and then its other ones.

    The prompt and every text are computed once, however many pairs they make. A text of the student is scored as the
    very tokens that were sampled.

    Args:
        references: a text by example id, added to the group as context.
    """
    groups: list[Group] = []
    for example_id, same in by_example(pairs).items():
        texts = _texts(same)
        place = {text: i for i, text in enumerate(texts)}
        completions = [tokens or tuple(prompt_format.encode_completion(text)) for text, tokens in texts.items()]
        context = [tuple(prompt_format.encode_completion(references[example_id]))] if references else []
        groups.append(
            Group(
                id=example_id,
                prompt=tuple(prompt_format.encode_prompt(same[0].prompt)),
                completions=(*completions, *context),
                chosen=len({pair.chosen for pair in same}),
                pairs=tuple((place[pair.chosen], place[pair.rejected]) for pair in same),
                values=_values(same, place),
                context=len(context),
            )
        )
    return groups


def _texts(same: Sequence[Pair]) -> dict[str, tuple[int, ...]]:
    """The distinct texts of an example's pairs, chosen ones first, each with its sampled tokens if they are known."""
    tokens: dict[str, tuple[int, ...]] = dict.fromkeys((pair.chosen for pair in same), ())
    for pair in same:
        tokens[pair.chosen] = tokens[pair.chosen] or pair.chosen_token_ids
        tokens[pair.rejected] = tokens.get(pair.rejected) or pair.rejected_token_ids
    return tokens


def _values(same: Sequence[Pair], place: Mapping[str, int]) -> dict[str, tuple[float, ...]]:
    """What was measured of each text, for the names measured of all of them."""
    values: dict[str, tuple[float, ...]] = {}
    for name in {name: None for pair in same for name in pair.values}:
        if any(name not in pair.values for pair in same):
            continue
        of_texts = [0.0] * len(place)
        for pair in same:
            for text, value in zip((pair.chosen, pair.rejected), pair.values[name], strict=True):
                of_texts[place[text]] = value
        values[name] = tuple(of_texts)
    return values


def chosen_groups(pairs: Sequence[Pair], prompt_format: PromptFormat) -> list[Group]:
    """What a warm-up trains on: each prompt with its distinct chosen answers, whoever wrote them."""
    return [Group(g.id, g.prompt, g.completions[: g.chosen], g.chosen) for g in pair_groups(pairs, prompt_format)]
