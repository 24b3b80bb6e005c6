"""The two halves of the training set, and the check that no prompt stands in two splits."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from plad.errors import DataError
from plad.records import Example, Prompt

SHOWN = 20  # leaking rows named in an error; the rest are counted


def prompt_key(prompt: Prompt) -> str:
    """Hash of a prompt that ignores case, white space and Unicode form.

    A conversation of one user message has the key of its text.
    """
    if isinstance(prompt, str):
        parts = [("user", prompt)]
    else:
        parts = [(m["role"], m["content"]) for m in prompt]
    text = "\x1e".join(f"{role}\x1f{_normalise(content)}" for role, content in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def _normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_train(examples: Sequence[Example], sft_share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Cut the training set in D0 (fine-tuning) and D (distillation): no prompt (normalised) stands in both halves.

    The distinct prompts are ordered by a seeded hash, and the first `sft_share` of them become D0. The order and number
    of other rows don't move a prompt in that order; each half keeps the order of `examples`.

    Source: PLaD, Section 3 (D0 and D).
    """
    keys = [prompt_key(e.prompt) for e in examples]
    ordered = _shuffled(keys, str(seed))
    cut = round(sft_share * len(ordered))
    if not 0 < cut < len(ordered):
        raise DataError(
            f"{len(ordered)} distinct training prompts with data.sft_share {sft_share:g} leave "
            f"{cut} for fine-tuning and {len(ordered) - cut} for distillation",
            where="data.train",
            fix="give more rows, or another data.sft_share",
        )
    first = set(ordered[:cut])
    sft = [e for e, key in zip(examples, keys, strict=True) if key in first]
    return sft, [e for e, key in zip(examples, keys, strict=True) if key not in first]


def _shuffled(keys: Iterable[str], salt: str) -> list[str]:
    """The distinct keys in an order that depends on each key and the salt alone."""
    return sorted(set(keys), key=lambda key: hashlib.sha256(f"{salt}:{key}".encode()).hexdigest())


def nested_share(examples: Sequence[Example], share: float, seed: int, purpose: str) -> list[Example]:
    """The examples of a share (0 to 1) of the distinct prompts, at least one, in their order.

    A smaller share is part of every larger one; two purposes choose independently of each other.
    """
    if share >= 1:
        return list(examples)
    keys = [prompt_key(e.prompt) for e in examples]
    ordered = _shuffled(keys, f"{purpose}:{seed}")
    kept = set(ordered[: max(round(share * len(ordered)), 1 if share > 0 else 0)])
    return [e for e, key in zip(examples, keys, strict=True) if key in kept]


def refuse_leakage(splits: Mapping[str, Iterable[tuple[str, Example]]]) -> None:
    """Check that no prompt (normalised) stands in two of the splits, which give each example with its place."""
    first: dict[str, tuple[str, str]] = {}  # key -> split, place
    leaks: list[str] = []
    for name, rows in splits.items():
        for place, example in rows:
            split, before = first.setdefault(prompt_key(example.prompt), (name, place))
            if split != name:
                leaks.append(f"  {before} ({split}) = {place} ({name}, id {example.id})")
    if leaks:
        more = [f"  ... and {len(leaks) - SHOWN} more"] if len(leaks) > SHOWN else []
        names = " and ".join(f"data.{name}" for name in splits)
        raise DataError(
            "\n".join([f"{len(leaks)} prompt(s) stand in two splits, so results would be flattered",
                       *leaks[:SHOWN], *more]),
            where=names,
            fix="remove each of these rows from one of the two files\n"
            "or data.overlap: drop leaves them out of train (and of validation)\n"
            "prompts are compared after Unicode normalisation, ignoring case and white space",
        )  # fmt: skip
