"""Pseudo-preference pairs: the teacher's answer is chosen, the student's rejected (Eq. 3)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from plad.config import DropRules
from plad.policy.prompt import PromptFormat
from plad.records import ANSWERED, Example, Generation, Outcome, Pair
from plad.scoring.layout import Group


def _drop_reason(answer: Generation, rules: DropRules, *, watched: bool) -> str | None:
    if answer.outcome not in ANSWERED:
        return answer.outcome.value  # there is no text
    if rules.empty and answer.outcome is Outcome.EMPTY:
        return "empty"
    return "truncated" if watched and answer.outcome is Outcome.TRUNCATED else None


def build_pairs(
    examples: Sequence[Example],
    teacher: Mapping[str, Sequence[Generation]],
    student: Mapping[str, Sequence[Generation]],
    rules: DropRules,
) -> tuple[list[Pair], dict[str, int]]:
    """Prefer every answer of the teacher to every answer of the student to the same prompt.

    An answer that is left out takes all its pairs with it; so does a student answer that the teacher gave too, and
    an answer given before.

    Args:
        teacher, student: answers by example id, in order of sample number.

    Returns:
        The pairs in order of examples, and counts: candidates, pairs, and dropped_* by reason.

    Source: PLaD, Eq. 3 and Algorithm 1, step 2.
    """
    pairs: list[Pair] = []
    counts: Counter[str] = Counter()
    for example in examples:
        chosen = _usable(teacher[example.id], rules, watched=True)
        taken = {a.text.strip() for a in teacher[example.id]} if rules.identical else set()
        rejected = _usable(student[example.id], rules, watched=rules.truncated == "both", taken=taken)
        for a, why_not_a in chosen:
            for b, why_not_b in rejected:
                counts["candidates"] += 1
                reason = why_not_a or why_not_b
                if reason is not None:
                    counts[f"dropped_{reason}"] += 1
                    continue
                pairs.append(_pair(example, a, b))
    counts["pairs"] = len(pairs)
    return pairs, dict(counts)


def _usable(
    answers: Sequence[Generation], rules: DropRules, *, watched: bool, taken: AbstractSet[str] = frozenset()
) -> list[tuple[Generation, str | None]]:
    """Each answer with the reason to leave it out, if there is one."""
    found: list[tuple[Generation, str | None]] = []
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
        found.append((answer, reason))
    return found


def _pair(example: Example, chosen: Generation, rejected: Generation) -> Pair:
    return Pair(
        id=f"{example.id}#{chosen.sample}-{rejected.sample}",
        prompt=example.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_source="teacher",
        rejected_source="student_sft",
        rejected_token_ids=rejected.token_ids,
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

    The prompt and every text are computed once, however many pairs they make. A rejected text is scored as the very
    tokens that were sampled.

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
    tokens: dict[str, tuple[int, ...]] = {pair.chosen: () for pair in same}
    for pair in same:
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
    """What SeqKD trains on: each prompt with its distinct chosen answers."""
    return [Group(g.id, g.prompt, g.completions[: g.chosen], g.chosen) for g in pair_groups(pairs, prompt_format)]
