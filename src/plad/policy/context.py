"""How much a model takes: prompt and answer together, or each for itself. Needs no torch."""

from typing import Any


def context_of(config: Any) -> tuple[int | None, bool]:
    """The context that a model's config states.

    Returns:
        (tokens, or None where it states none; whether prompt and answer each have them, as in an encoder-decoder).
    """
    own = config.get_text_config()
    apart = bool(config.is_encoder_decoder)
    return getattr(own, "max_position_embeddings", None), apart


def fits(prompt: int, answer: int, context: int, *, apart: bool) -> bool:
    """Whether a prompt and its answer, in tokens, fit a context: together, or each for itself."""
    return max(prompt, answer) <= context if apart else prompt + answer <= context
