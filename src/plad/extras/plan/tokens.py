"""Tokens of prompts and answers: counted where a tokenizer is here, else estimated from their characters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from plad.answers.engine import engine_kind
from plad.answers.reply import TEMPLATE_TOKENS, count_tokens, estimated_tokens
from plad.config.base import Role
from plad.config.root import Config
from plad.data.sources import locate
from plad.errors import PladError
from plad.policy.resolve import local_folder
from plad.records import Example, Prompt

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
    role: Role = "teacher" if system == "teacher" else "student"
    section = config.teacher if role == "teacher" else config.student
    if role == "teacher" and not config.teacher.local:
        return _of_engine(config, base)
    try:
        model = locate(section.model, base)
        folder = local_folder(model, section.revision)
        if folder is None:
            return by_bytes(f"{section.model} is not on this machine: {CHARACTERS}")
        from plad.policy.folder import check_policy

        prompt = check_policy(section.model_copy(update={"model": str(folder), "revision": None}), role)
    except PladError as e:
        return by_bytes(f"{e.what}: {CHARACTERS}")
    return _exact(
        lambda e: len(prompt.encode_prompt(e.prompt)),
        lambda text: len(prompt.encode_completion(text)),
        f"counted by the {role}'s tokenizer",
    )


def _of_engine(config: Config, base: Path) -> Counter:
    sending = engine_kind(config.teacher.engine).sending(config.teacher, base)
    tokenizer = sending.tokenizer
    if tokenizer is None:
        return by_bytes(CHARACTERS, sending.put)
    return _exact(
        lambda e: count_tokens(tokenizer, sending.put(e)),
        lambda text: len(tokenizer.encode(text, add_special_tokens=False)) + 1,
        "counted by engine.tokenizer",
    )


def _exact(prompt: Callable[[Example], int], completion: Callable[[str], int], how: str) -> Counter:
    return Counter(prompt, completion, prompt, how, exact=True)


def by_bytes(how: str, sent: Callable[[Example], Prompt] = lambda example: example.prompt) -> Counter:
    """An estimate from the bytes of a prompt as it is sent, and of an answer."""
    return Counter(
        lambda e: prompt_bytes(sent(e)) // 4,
        lambda text: estimated_tokens(text) + 1,
        lambda e: prompt_bytes(sent(e)) + TEMPLATE_TOKENS,
        how,
        exact=False,
    )


def mean_target(examples: Iterable[Example], counter: Counter) -> float | None:
    """Mean tokens of the targets; None where there are none."""
    sizes = [counter.completion(e.target) for e in examples if e.target is not None]
    return sum(sizes) / len(sizes) if sizes else None
