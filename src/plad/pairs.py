"""Pseudo-preference pairs: the teacher's answer is chosen, the student's rejected (Eq. 3)."""

from collections import Counter
from collections.abc import Mapping, Sequence

from plad.config import DropRules
from plad.policy.prompt import PromptFormat
from plad.records import Example, Generation, Outcome, Pair
from plad.scoring.layout import Group


def _drop_reason(teacher: Generation, student: Generation, rules: DropRules) -> str | None:
    if Outcome.TOO_LONG in (teacher.outcome, student.outcome):
        return "too_long"  # never sampled: there is no text to compare
    if rules.empty and Outcome.EMPTY in (teacher.outcome, student.outcome):
        return "empty"
    watched = (teacher, student) if rules.truncated == "both" else (teacher,)
    if any(g.outcome is Outcome.TRUNCATED for g in watched):
        return "truncated"
    if rules.identical and teacher.text.strip() == student.text.strip():
        return "identical"
    return None


def build_pairs(
    examples: Sequence[Example],
    teacher: Mapping[str, Sequence[Generation]],
    student: Mapping[str, Sequence[Generation]],
    rules: DropRules,
) -> tuple[list[Pair], dict[str, int]]:
    """Pair every student answer with a teacher answer to the same prompt.

    Student sample k meets teacher sample k modulo their number. Repeats of a pair are dropped.

    Args:
        teacher, student: answers by example id, in order of sample number.

    Returns:
        The pairs in order of examples, and counts: candidates, pairs, and dropped_* by reason.

    Source: PLaD, Eq. 3 and Algorithm 1, step 2.
    """
    pairs: list[Pair] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    for example in examples:
        answers = teacher[example.id]
        for rejected in student[example.id]:
            counts["candidates"] += 1
            chosen = answers[rejected.sample % len(answers)]
            reason = _drop_reason(chosen, rejected, rules)
            key = (example.id, chosen.text, rejected.text)
            if reason is None and key in seen:
                reason = "repeated"
            if reason is not None:
                counts[f"dropped_{reason}"] += 1
                continue
            seen.add(key)
            pairs.append(
                Pair(
                    id=f"{example.id}#{rejected.sample}",
                    prompt=example.prompt,
                    chosen=chosen.text,
                    rejected=rejected.text,
                    chosen_source="teacher",
                    rejected_source="student_sft",
                    rejected_token_ids=rejected.token_ids,
                )
            )
    counts["pairs"] = len(pairs)
    return pairs, dict(counts)


def pair_groups(pairs: Sequence[Pair], prompt_format: PromptFormat) -> list[Group]:
    """What `rank` trains on: one group a teacher answer, with every student answer paired with it.

    The completions of a group are (chosen, rejected, rejected, ...): the prompt and the chosen text are
    computed once, however many student answers are ranked below it. A rejected text is scored as the
    very tokens that were sampled.
    """
    grouped: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.id.rpartition("#")[0], pair.chosen), []).append(pair)
    return [
        Group(
            id=same[0].id,
            prompt=tuple(prompt_format.encode_prompt(same[0].prompt)),
            completions=(
                tuple(prompt_format.encode_completion(chosen)),
                *(p.rejected_token_ids or tuple(prompt_format.encode_completion(p.rejected)) for p in same),
            ),
        )
        for (_, chosen), same in grouped.items()
    ]


def chosen_groups(pairs: Sequence[Pair], prompt_format: PromptFormat) -> list[Group]:
    """What SeqKD trains on: the distinct teacher answers alone."""
    return [Group(g.id, g.prompt, g.completions[:1]) for g in pair_groups(pairs, prompt_format)]
