"""How one request ended, and the tokens of texts that nobody counted."""

import math
from dataclasses import dataclass, replace
from typing import Protocol

from plad.records import Outcome, Prompt
from plad.text import conceal, redact

MOST_TOKENS = 10**9  # of one request; more is no count
REPEATED_A_KEY = "the reply repeated an API key, which is redacted"
TEMPLATE_TOKENS = 64  # what a server's chat template may add to a prompt's bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended.

    Attributes:
        text: the answer, stripped of outer white space; empty unless the outcome comes with one.
        token_ids: the answer's tokens, where the engine knows them.
        estimated: the token counts are guessed from the text's length, the provider gave none.
        model: the model that served it, as the provider names it.
        cost: US dollars, None where no price is known.
        seconds: from sending the last attempt to its answer.
        attempts: requests sent for it.
        lost: attempts without an answer that may have been billed all the same.
        message: what the provider said, or a hint.
    """

    outcome: Outcome
    text: str = ""
    token_ids: tuple[int, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    model: str | None = None
    cost: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    lost: int = 0
    message: str | None = None


def without_secrets(reply: Reply) -> Reply:
    """A reply as it may be recorded: without a key that it repeats, of which its message speaks then."""
    text, model = conceal(reply.text), reply.model and conceal(reply.model)
    message = reply.message and redact(reply.message)
    if (text, model, message) == (reply.text, reply.model, reply.message):
        return reply
    said = "; ".join(filter(None, (message, REPEATED_A_KEY)))
    return replace(reply, text=text, token_ids=() if text != reply.text else reply.token_ids, model=model, message=said)


def is_other_model(asked: str, served: str) -> bool:
    """Whether a server answered with another model than asked for; a longer name of the same is no other."""
    return asked not in served and served not in asked


def estimated_tokens(text: str) -> int:
    """A guess at a text's tokens where nobody counts them: four UTF-8 bytes each."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


class Tokenizer(Protocol):
    """What counting needs of a tokenizer of transformers."""

    chat_template: object

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text."""
        ...

    def apply_chat_template(
        self, conversation: Prompt, *, add_generation_prompt: bool, tokenize: bool, return_dict: bool
    ) -> list[int]:
        """The tokens of messages."""
        ...


def count_tokens(tokenizer: Tokenizer, prompt: Prompt) -> int:
    """Tokens of messages or of a text, as a tokenizer with the server's chat template counts them."""
    if isinstance(prompt, str):
        return len(tokenizer.encode(prompt))
    if tokenizer.chat_template is None:
        return sum(len(tokenizer.encode(m["content"], add_special_tokens=False)) for m in prompt)
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
