"""From rows of text to groups of tokens, with a count for everything left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from plad.errors import DataError
from plad.policy.load import Policy
from plad.policy.prompt import PromptFormat
from plad.records import Example
from plad.scoring.layout import Group


@dataclass(frozen=True, slots=True)
class Encoded:
    """Groups ready to train on, and how many rows were left out.

    Attributes:
        too_long: rows over `max_length` or the context.
        no_completion: rows whose completion has no tokens.
    """

    groups: list[Group]
    too_long: int = 0
    no_completion: int = 0

    def require(self, where: str) -> None:
        """Refuse to go on without a group.

        Raises:
            DataError: none is left.
        """
        if not self.groups:
            raise DataError(
                f"no rows left to train on: {self.counts()}", where=where, fix="raise max_length\nor give shorter rows"
            )

    def counts(self) -> dict[str, int]:
        """For the manifest."""
        return {"groups": len(self.groups), "too_long": self.too_long, "no_completion": self.no_completion}


def keep_fitting(groups: Sequence[Group], policy: Policy, max_length: int | None) -> Encoded:
    """Leave out groups that don't fit the policy's context or `max_length`, or have nothing to learn from."""
    kept: list[Group] = []
    too_long = empty = 0
    for g in groups:
        if any(not c for c in g.completions):
            empty += 1
        elif not policy.fits(len(g.prompt), max(map(len, g.completions)), max_length):
            too_long += 1
        else:
            kept.append(g)
    return Encoded(kept, too_long, empty)


def tokens_of(groups: Sequence[Group]) -> int:
    """Tokens of all texts that are learnt from; what they are compared with is none of them."""
    return sum(len(text) for g in groups for text in g.completions[: g.candidates])


def longest(groups: Sequence[Group]) -> Group:
    """The longest group: the one on which a wrong attention window would show."""
    return max(groups, key=lambda g: g.tokens)


def without_rejected_end(group: Group, eos_ids: Sequence[int]) -> Group:
    """The group without the end-of-sequence token of texts that are never preferred, unless nothing else is there."""
    better = {i for i, _ in group.preferences}

    def cut(i: int, text: tuple[int, ...]) -> tuple[int, ...]:
        ends = i < group.candidates and i not in better and len(text) > 1 and text[-1] in eos_ids
        return text[:-1] if ends else text

    return replace(group, completions=tuple(cut(i, text) for i, text in enumerate(group.completions)))


def sft_groups(examples: Sequence[Example], prompt_format: PromptFormat) -> list[Group]:
    """What fine-tuning trains on: each prompt with its target."""
    return [
        Group(
            id=e.id,
            prompt=tuple(prompt_format.encode_prompt(e.prompt)),
            completions=(tuple(prompt_format.encode_completion(e.target)),),
        )
        for e in examples
        if e.target is not None
    ]
