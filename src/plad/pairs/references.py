"""Which text the candidates of a prompt are compared with by the margin loss."""

from collections.abc import Mapping, Sequence

from plad.pairs.build import by_example
from plad.records import Generation, Outcome, Pair


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
