"""Who says which of two answers is better."""

from typing import Annotated, Literal

import regex
from pydantic import Field, PrivateAttr, model_validator

from plad.config.base import PACES, PositiveInt, Section
from plad.config.engines import Endpoint


class ReferenceJudge(Section):
    """Scores an answer by ROUGE-L F1 against the references other than the target."""

    type: Literal["reference"] = "reference"


class JudgeModel(Section):
    """A model that a judge runs."""

    model: str = Field(description="Folder or hub name.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU that has it, else float32; scores are float32 either way."
    )
    batch_size: Annotated[PositiveInt, PACES] = Field(
        default=8, description="Texts a forward pass; of no influence on a score."
    )
    max_length: PositiveInt | None = Field(
        default=None, description="Most tokens of a text. Default: the model's context; what is cut off is counted."
    )


class RewardJudge(JudgeModel):
    """Scores an answer with a reward model: any sequence classifier with one output."""

    type: Literal["reward"] = "reward"
    input: Literal["auto", "pair", "chat", "plain"] = Field(
        default="auto",
        description="pair: prompt and answer as a text pair; chat: through the chat template; plain: prompt, blank "
        "line, answer, end of sequence. auto: as `plad reward` trained the model; else chat with a template, pair "
        "where the tokenizer marks pairs, else plain.",
    )


class EmbeddingJudge(JudgeModel):
    """Scores an answer by its nearness in meaning to the references other than the target."""

    type: Literal["embedding"] = "embedding"
    prefix: str = Field(default="", description="Text that the model wants before every text, such as `query: `.")


class VerifiableJudge(Section):
    """Scores an answer 1 where it is right and 0 where it is not, by a rule instead of an opinion."""

    type: Literal["verifiable"] = "verifiable"
    match: Literal["number", "exact", "regex", "function"] = Field(
        default="number",
        description="What must agree with a reference. number: the first number after the last of `markers`, without a "
        "marker the last number. exact: the whole text, or what stands after the last marker. regex: what `pattern` "
        "finds last. function: a Python function named by --verify on the command line, never here.",
    )
    markers: tuple[str, ...] = Field(
        default=("####", "A:"), description="What a final answer stands behind, in answers and references (GSM8K)."
    )
    pattern: str | None = Field(
        default=None, description="Regular expression for regex: its first group, or all of it, is the answer."
    )
    tolerance: float = Field(
        default=1e-6, ge=0, lt=1, description="Largest difference of two equal numbers, as a share of the reference."
    )
    ignore_case: bool = Field(default=True, description="For exact and regex.")
    _function: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _pattern_where_it_is_used(self) -> "VerifiableJudge":
        if (self.match == "regex") != (self.pattern is not None):
            raise ValueError("match: regex and pattern belong together")
        if self.pattern is not None:
            try:
                regex.compile(self.pattern)
            except regex.error as e:
                raise ValueError(f"pattern is not a regular expression: {e}") from None
        return self

    @property
    def function(self) -> str | None:
        """`module:function` or `file.py:function`, from the command line."""
        return self._function

    def verified_by(self, function: str | None) -> "VerifiableJudge":
        """The section with the command line's function, where it needs one."""
        made = self.model_copy()
        made._function = function if self.match == "function" else None
        return made


class LlmJudge(Endpoint):
    """Asks a model behind an endpoint which of two answers is better, in both orders."""

    type: Literal["llm"] = "llm"
    model: str = Field(description="The model's name there.")
    revision: str | None = Field(default=None, description="Tells verdicts apart where a provider changes a model.")
    task: Literal["summary", "dialogue"] = Field(
        default="dialogue", description="What makes an answer better: a rubric for summaries or for helpful dialogue."
    )
    rubric: str | None = Field(default=None, min_length=1, description="Your own text in the rubric's place.")
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema", description="How the server is told to reply in JSON; none only asks for it in words."
    )
    temperature: float = Field(default=0.0, ge=0, description="Temperature of the replies.")
    max_new_tokens: PositiveInt = Field(default=512, description="Most tokens of a reply; reasoning counts.")
    max_characters: PositiveInt = Field(
        default=20_000, description="Characters of an answer that the judge sees; what is cut off is counted."
    )
    max_unjudged: Annotated[float, PACES] = Field(
        default=0.05, ge=0, le=1, description="Share of comparisons without a verdict above which the run fails."
    )


Judge = Annotated[
    ReferenceJudge | RewardJudge | EmbeddingJudge | VerifiableJudge | LlmJudge, Field(discriminator="type")
]
