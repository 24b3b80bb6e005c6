"""Where a teacher's answers come from when no model is loaded here: endpoints, files, and what they may cost."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from plad.config.base import PACES, PositiveInt, Section

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
    price: Annotated[PriceSection | None, PACES] = Field(
        default=None, description="For the cost of answers, and for `budget.usd`."
    )

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars for so many tokens; None where no price is known."""
        return None if self.price is None else self.price.of(prompt_tokens, completion_tokens)

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


class TransformersEngine(Section):
    """A model in this process."""

    type: Literal["transformers"] = "transformers"


class AnswerColumns(Section):
    """Names of the columns of a file of answers."""

    id: str = Field(default="id", description="The example's id; joins where a row has one.")
    prompt: str = Field(default="prompt", description="The example's prompt; joins where a row has no id.")
    text: str = Field(default="text", description="The answer.")


class VllmEngine(Section):
    """A local model, sampled by vLLM in this process: fast on a GPU."""

    type: Literal["vllm"] = "vllm"
    chunk: Annotated[PositiveInt, PACES] = Field(
        default=512, description="Prompts handed over at once; each whole chunk is recorded."
    )
    gpu_memory_utilization: Annotated[float, PACES] = Field(
        default=0.9, gt=0, le=1, description="Share of the GPU's memory it takes."
    )
    tensor_parallel_size: Annotated[PositiveInt, PACES] = Field(default=1, description="GPUs that share the model.")
    timeout_s: Annotated[float, PACES] = Field(
        default=3600.0, gt=0, description="Seconds for a chunk, after which vLLM counts as hung."
    )


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


class OpenAIEngine(Endpoint):
    """Any server that speaks OpenAI's protocol; `teacher.model` is the model's name there."""

    type: Literal["openai"] = "openai"
    api: Literal["chat", "completions"] = Field(
        default="chat", description="chat: messages, the server applies its chat template; completions: plain text."
    )
    mode: Annotated[Literal["live", "batch"], PACES] = Field(
        default="live",
        description="live: each request by itself; batch: many in a file, answered within a day for less. The answers "
        "are the same to the ledger, so that one mode may finish what the other began.",
    )
    batch: Annotated[BatchSection, PACES] = Field(default=BatchSection(), description="For mode: batch.")
    tokenizer: Annotated[str | None, PACES] = Field(
        default=None,
        description="Folder or hub name of the model's tokenizer: with `context`, prompts that are too long are found "
        "before they are sent.",
    )
    context: Annotated[PositiveInt | None, PACES] = Field(
        default=None, description="Most tokens of prompt and answer together; needs `tokenizer`."
    )

    @model_validator(mode="after")
    def _lengths_need_both(self) -> "OpenAIEngine":
        if (self.tokenizer is None) != (self.context is None):
            raise ValueError("tokenizer and context go together: the one counts what the other limits")
        return self

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """US dollars for so many tokens, in a batch at its price; None where no price is known."""
        usd = super().cost(prompt_tokens, completion_tokens)
        return usd * self.price.batch if usd is not None and self.price and self.mode == "batch" else usd


class FileEngine(Section):
    """Answers that exist already; `teacher.model` says who wrote them."""

    type: Literal["file"] = "file"
    path: str = Field(
        description='JSONL (also .gz) or parquet of {"prompt" or "id", "text"}; several rows, several answers.'
    )
    columns: AnswerColumns = AnswerColumns()


Engine = Annotated[TransformersEngine | VllmEngine | OpenAIEngine | FileEngine, Field(discriminator="type")]
