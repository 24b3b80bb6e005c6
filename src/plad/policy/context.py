"""How much a model takes: prompt and answer together, or each for itself. Needs no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def text_config(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """The config of a model's language part, which of a text model is all of it."""
    return config.get_text_config()  # pyright: ignore[reportUnknownMemberType]  # typed in part


def context_of(config: "PreTrainedConfig") -> tuple[int | None, bool]:
    """The tokens of context that a config states, if it does, and whether prompt and answer have them each."""
    return getattr(text_config(config), "max_position_embeddings", None), bool(config.is_encoder_decoder)


def fits(prompt: int, answer: int, context: int, *, apart: bool) -> bool:
    """Whether a prompt and its answer, in tokens, fit a context: together, or each for itself."""
    return max(prompt, answer) <= context if apart else prompt + answer <= context
