"""Tokens of prompts and answers: counted where a tokenizer is here, else estimated from their characters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from plad.answers.reply import estimated_tokens
from plad.config.base import Role
from plad.config.engines import OpenAIEngine
from plad.config.root import Config
from plad.data.sources import locate
from plad.errors import PladError
from plad.policy.resolve import cached, local_folder
from plad.records import Example, Prompt
from plad.remote.budget import TEMPLATE_TOKENS
from plad.remote.engine import OpenAI, count_tokens

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
        return _of_endpoint(config, base)
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


def _of_endpoint(config: Config, base: Path) -> Counter:
    engine = config.teacher.engine
    if not isinstance(engine, OpenAIEngine):
        return by_bytes(CHARACTERS)
    client = OpenAI(engine, config.teacher.model, config.teacher.prompt)
    folder = None if engine.tokenizer is None else _tokenizer_folder(locate(engine.tokenizer, base))
    if folder is None:
        return by_bytes(CHARACTERS, client.encode)
    from plad.policy.folder import load_tokenizer

    tokenizer = load_tokenizer(folder)
    encode = cast("Callable[..., list[int]]", tokenizer.encode)  # pyright: ignore[reportUnknownMemberType]  # half typed
    return _exact(
        lambda e: count_tokens(tokenizer, client.encode(e)),
        lambda text: len(encode(text, add_special_tokens=False)) + 1,
        "counted by engine.tokenizer",
    )


def _tokenizer_folder(name: str) -> Path | None:
    if Path(name).is_dir():
        return Path(name)
    try:
        return cached(name, None)
    except PladError:
        return None


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
