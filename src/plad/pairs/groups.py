"""Pairs as a student is trained on them: one group a prompt, and the text that the margin loss compares with."""

from collections.abc import Mapping, Sequence

from plad.policy.prompt import PromptFormat
from plad.records import Generation, Outcome, Pair
from plad.scoring.layout import Group


def by_example(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each example, by its id."""
    grouped: dict[str, list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault(pair.example_id, []).append(pair)
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


def choose_references(
    pairs: Sequence[Pair], targets: Mapping[str, str | None], answers: Mapping[str, Sequence[Generation]]
) -> tuple[dict[str, str], list[Pair]]:
    """A reference for each prompt: its target, else an answer of the teacher that no pair chooses.

    Where every answer of the teacher is chosen in some pair, the last one is the reference, and its pairs are left out.

    Args:
        targets: by example id; a missing or blank one is none.
        answers: the teacher's, by example id, in order of sample number.

    Returns:
        Texts by example id, and the pairs that have one.

    Source: PLaD (arXiv 2406.02886), Eq. 5 and 6: the text y.
    """
    references: dict[str, str] = {}
    kept: list[Pair] = []
    for example_id, same in by_example(pairs).items():
        target = (targets.get(example_id) or "").strip()
        reference = target or _another(same, answers.get(example_id, ()))
        left = same if target else [pair for pair in same if reference not in (pair.chosen, pair.rejected)]
        if reference and left:
            references[example_id] = reference
            kept += left
    return references, kept


def _another(pairs: Sequence[Pair], answers: Sequence[Generation]) -> str | None:
    """The first answer in no pair, else the first that no pair chooses, else the last one of two or more."""
    texts = list(dict.fromkeys(answer.text for answer in answers if answer.outcome is Outcome.OK))
    chosen = {pair.chosen for pair in pairs}
    both = chosen | {pair.rejected for pair in pairs}
    free = [text for text in texts if text not in both] or [text for text in texts if text not in chosen]
    return free[0] if free else texts[-1] if len(texts) > 1 else None
