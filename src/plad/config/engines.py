"""Who answers for the teacher, the servers that models stand behind, and what they may cost."""

import re
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from plad.config.base import PACES, PositiveInt, Section, refuse_secrets
from plad.config.kinds import Kind

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
EnvironmentVariable = Annotated[str, Field(min_length=1)]


class PriceSection(Section):
    """What a provider charges, in US dollars a million tokens."""

    input: float = Field(ge=0, description="US dollars a million prompt tokens.")
    output: float = Field(ge=0, description="US dollars a million tokens of answers.")
    batch: float = Field(
        default=1.0, ge=0, le=1, description="Share of these prices that a request in a batch costs (OpenAI: 0.5)."
    )

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class BudgetSection(Section):
    """The most that a run may take from providers; it stops before, and continues once this is raised."""

    usd: float | None = Field(default=None, gt=0, description="US dollars; needs the price of every endpoint.")
    tokens: PositiveInt | None = Field(default=None, description="Tokens of prompts and answers together.")


class BatchSection(Section):
    """How requests are handed over as batches, and how often somebody looks whether they are done."""

    max_requests: PositiveInt = Field(default=50_000, description="Most requests of a batch.")
    max_bytes: PositiveInt = Field(default=200_000_000, description="Most bytes of a batch's file.")
    at_once: PositiveInt = Field(
        default=2, description="Batches under way at once; their prompts are held in memory meanwhile."
    )
    poll_s: float = Field(default=15.0, gt=0, description="Seconds before the first look; each wait is longer by half.")
    max_poll_s: float = Field(default=600.0, gt=0, description="Longest wait between two looks, in seconds.")
    window: str = Field(default="24h", description="`completion_window`, as the provider names it.")


class Endpoint(Section):
    """An OpenAI-compatible server, and how hard it may be worked."""

    base_url: str = Field(description="Address up to the version, such as https://api.openai.com/v1.")
    api_key_env: Annotated[EnvironmentVariable | None, PACES] = Field(
        default=None, description="Name of the environment variable that holds the key; null sends none."
    )
    body: dict[str, Any] = Field(
        default={},
        description="Further fields of every request, as the provider names them; null leaves a field out "
        "(temperature: null, for a model that takes none).",
    )
    max_tokens_field: str = Field(
        default="max_tokens", description="Field that carries the most tokens of an answer, or max_completion_tokens."
    )
    seed_field: str | None = Field(
        default="seed", description="Field that carries the seed (Mistral: random_seed); null sends none."
    )
    concurrency: Annotated[PositiveInt, PACES] = Field(
        default=16, description="Most requests in flight; fewer after a rate limit."
    )
    rpm: Annotated[PositiveInt | None, PACES] = Field(default=None, description="Most requests a minute.")
    tpm: Annotated[PositiveInt | None, PACES] = Field(
        default=None, description="Most tokens a minute: a prompt's, estimated, and the most its answer may have."
    )
    timeout_s: Annotated[float, PACES] = Field(
        default=300.0, gt=0, description="Seconds for one request, its whole answer included."
    )
    max_attempts: Annotated[PositiveInt, PACES] = Field(
        default=8, description="Tries of a request that fails for a passing reason; then it counts as failed."
    )
    max_wait_s: Annotated[float, PACES] = Field(
        default=600.0,
        gt=0,
        description="Longest pause a rate limit may ask for, and the longest time it may let nothing through.",
    )
    longest_answer: Annotated[PositiveInt, PACES] = Field(
        default=131_072,
        description="Most tokens that an answer of this model can be billed, whatever was asked for: its context, or "
        "the provider's maximum. `budget` sets them aside until the provider has shown that it keeps to max_tokens.",
    )
    price: Annotated[PriceSection | None, PACES] = Field(
        default=None, description="For the cost of answers, and for `budget.usd`."
    )

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars for so many tokens; None where no price is known."""
        return None if self.price is None else self.price.of(prompt_tokens, completion_tokens)

    @property
    def batches(self) -> BatchSection | None:
        """How requests are handed over as batches; None where each is sent by itself."""
        return None

    @field_validator("body")
    @classmethod
    def _holds_no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        refuse_secrets(value)
        return value

    @field_validator("base_url")
    @classmethod
    def _is_a_plain_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("not an address; it looks like https://api.openai.com/v1") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("must start with http:// or https:// and a host, such as https://api.openai.com/v1")
        if parts.username or parts.password:
            raise ValueError("holds a user or password, which would end up in logs; put the key's name in api_key_env")
        if parts.query or parts.fragment:
            raise ValueError("holds a query (?...), which may carry a key; put the key's name in api_key_env")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError("must be the name of an environment variable (CAPITALS_AND_UNDERSCORES), never a key")
        return value


class EngineSection(Kind):
    """Who answers for the teacher.

    These are the facts that a config and a report ask for; `plad.answers.engine.EngineKind` adds what a run does with
    an engine, and is what one derives from.

    Attributes:
        local: the teacher's weights are here, so that it can be fine-tuned and its logits be read.
        paid: somebody charges for its tokens; they count towards the budget.
        prompt_fields: the settings of `teacher.prompt` that shape its answers, where it isn't local.
        behind: what a report says the teacher answers behind.
    """

    group: ClassVar[str] = "plad.engines"
    homes: ClassVar[tuple[str, ...]] = ("plad.sampling", "plad.remote", "plad.answers")

    local: ClassVar[bool] = False
    paid: ClassVar[bool] = False
    prompt_fields: ClassVar[frozenset[str]] = frozenset()
    behind: ClassVar[str] = "an engine"

    @property
    def endpoint(self) -> Endpoint | None:
        """The server it asks, and what that charges."""
        return None
