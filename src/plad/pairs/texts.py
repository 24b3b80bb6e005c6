"""Texts for training on logits: told apart by who wrote them, whatever a scorer preferred."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from plad.pairs.build import TEACHER
from plad.policy.prompt import PromptFormat
from plad.records import Pair
from plad.scoring.layout import Group

_FILE = "file"  # the source of pairs that somebody else made


def texts_of_pairs(pairs: Sequence[Pair], prompt_format: PromptFormat) -> list[Group]:
    """One group a prompt: the teacher's texts as its chosen completions, then the student's, each once.

    A student's text is the very tokens that were sampled. Of pairs that somebody else made, the preferred text stands
    for the teacher's.
    """
    prompts: dict[str, Pair] = {}
    found: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]] = {}
    for pair in pairs:
        example = pair.id.rpartition("#")[0]
        prompts.setdefault(example, pair)
        teacher, student = found.setdefault(example, ({}, {}))
        for text, source, tokens in (
            (pair.chosen, pair.chosen_source, pair.chosen_token_ids),
            (pair.rejected, pair.rejected_source, pair.rejected_token_ids),
        ):
            theirs = source == TEACHER or (source == _FILE and text == pair.chosen)
            side = teacher if theirs else student
            side.setdefault(text, tokens or tuple(prompt_format.encode_completion(text)))
    return [
        Group(example, prompt, (*teacher.values(), *student.values()), len(teacher))
        for example, (teacher, student) in found.items()
        for prompt in [tuple(prompt_format.encode_prompt(prompts[example].prompt))]
    ]


def only(groups: Sequence[Group], *, teacher: bool = False, student: bool = False) -> list[Group]:
    """Those groups of `texts_of_pairs` that have the wanted texts, with these texts alone."""
    found: list[Group] = []
    for g in groups:
        theirs = g.completions[: g.chosen] if teacher else ()
        own = g.completions[g.chosen :] if student else ()
        if len(theirs) >= teacher and len(own) >= student:
            found.append(replace(g, completions=(*theirs, *own), chosen=len(theirs)))
    return found


def with_targets(
    groups: Sequence[Group], targets: Mapping[str, str | None], prompt_format: PromptFormat
) -> list[Group]:
    """The same prompts with the data's target as their only text; those without one are left out."""
    return [
        Group(g.id, g.prompt, (tuple(prompt_format.encode_completion(target)),))
        for g in groups
        if (target := targets.get(g.id))
    ]
