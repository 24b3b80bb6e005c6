"""Tokens of prompts and answers: counted where a tokenizer is here, else estimated from their characters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plad.answers.reply import estimated_tokens
from plad.config.engines import OpenAIEngine
from plad.config.root import Config
from plad.data.sources import locate
from plad.errors import PladError
from plad.records import Example, Prompt
from plad.remote.budget import TEMPLATE_TOKENS

CHARACTERS = "4 bytes a token"


@dataclass(frozen=True)
class Counter:
    """How the tokens of one system's texts are told.

    Attributes:
        prompt: tokens of a prompt.
        completion: tokens of an answer, its end included.
        most: the most tokens that a prompt can have.
        how: where the numbers come from.
        exact: whether they are counted.
    """

    prompt: Callable[[Example], int]
    completion: Callable[[str], int]
    most: Callable[[Example], int]
    how: str
    exact: bool


def prompt_bytes(prompt: Prompt) -> int:
    """UTF-8 bytes of a prompt, and what messages add."""
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "replace"))
    return sum(len(m["content"].encode("utf-8", "replace")) + 16 for m in prompt)


def counter_of(config: Config, system: str, base: Path) -> Counter:
    """The counter of the system's own tokenizer; of the bytes where it isn't on this machine."""
    role = "teacher" if system == "teacher" else "student"
    if role == "teacher" and not config.teacher.local:
        return _of_endpoint(config, base)
    section = getattr(config, role)
    try:
        from plad.policy.resolve import local_folder

        located = section.model_copy(update={"model": locate(section.model, base)})
        folder = local_folder(located.model, located.revision)
        if folder is None:
            return by_bytes(f"{section.model} is not on this machine: {CHARACTERS}")
        from plad.policy.folder import check_policy

        own = located.model_copy(update={"model": str(folder), "revision": None})
        prompt = check_policy(own, role)
    except PladError as e:
        return by_bytes(f"{e.what}: {CHARACTERS}")
    return _exact(
        lambda e: len(prompt.encode_prompt(e.prompt)),
        lambda text: len(prompt.encode_completion(text)),
        f"counted by the {role}'s tokenizer",
    )


def _of_endpoint(config: Config, base: Path) -> Counter:
    engine = config.teacher.engine
    if not isinstance(engine, OpenAIEngine):
        return by_bytes(CHARACTERS)
    from plad.remote.engine import OpenAI, count_tokens

    asked = OpenAI(engine, config.teacher.model, config.teacher.prompt)
    if engine.tokenizer is not None:
        folder = _tokenizer_folder(locate(engine.tokenizer, base))
        if folder is not None:
            from plad.policy.folder import load_tokenizer

            tokenizer = load_tokenizer(folder)
            return _exact(
                lambda e: count_tokens(tokenizer, asked.encode(e)),
                lambda text: len(tokenizer.encode(text, add_special_tokens=False)) + 1,
                "counted by engine.tokenizer",
            )
    return by_bytes(CHARACTERS, asked.encode)


def _tokenizer_folder(name: str) -> Path | None:
    from plad.policy.resolve import cached

    if Path(name).is_dir():
        return Path(name)
    try:
        return cached(name, None)
    except PladError:
        return None


def _exact(prompt: Callable[[Example], int], completion: Callable[[str], int], how: str) -> Counter:
    return Counter(prompt, completion, prompt, how, exact=True)


def by_bytes(how: str, put: Callable[[Example], Any] = lambda example: example.prompt) -> Counter:
    """An estimate from the bytes of a prompt as it is put, and of an answer."""
    return Counter(
        lambda e: prompt_bytes(put(e)) // 4,
        lambda text: estimated_tokens(text) + 1,
        lambda e: prompt_bytes(put(e)) + TEMPLATE_TOKENS,
        how,
        exact=False,
    )


def mean_target(examples: Iterable[Example], counter: Counter) -> float | None:
    """Mean tokens of the targets; None where there are none."""
    sizes = [counter.completion(e.target) for e in examples if e.target is not None]
    return sum(sizes) / len(sizes) if sizes else None
