"""Models that judges run: safetensors only, no remote code, batched by length."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from plad.config.judges import JudgeModel
from plad.errors import PolicyError
from plad.policy.backend import choose_device, choose_dtype, no_progress_bars


def load_config_and_tokenizer(section: JudgeModel, where: str) -> tuple[Any, Any]:
    """The model's configuration and tokenizer.

    Raises:
        PolicyError: there is no such model.
    """
    options: dict[str, Any] = {"revision": section.revision, "trust_remote_code": False}
    try:
        return (
            AutoConfig.from_pretrained(section.model, **options),
            AutoTokenizer.from_pretrained(section.model, **options),
        )
    except (OSError, ValueError) as e:
        raise PolicyError(f"can't load the model: {e}", where=where, fix="name a folder or hub model") from e


def load_weights(
    auto: Any, section: JudgeModel, where: str, *, needs: Callable[[str], bool] = lambda name: True
) -> Any:
    """The model with its weights, on the device, in evaluation mode.

    Args:
        auto: the transformers class that loads it.
        needs: whether a weight of that name must be in the folder.

    Raises:
        PolicyError: they are no safetensors, or some are missing.
    """
    device, _ = choose_device()
    dtype, _ = choose_dtype(section.dtype, device)
    try:
        with no_progress_bars():
            model, info = auto.from_pretrained(
                section.model,
                revision=section.revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
            )
    except (OSError, ValueError) as e:
        raise PolicyError(
            f"can't load the model's weights: {e}",
            where=where,
            fix="only safetensors are read: convert pickled weights on a machine you trust, or name another model",
        ) from e
    missing = sorted(name for name in info["missing_keys"] if needs(name))
    if missing:
        raise PolicyError(
            f"the folder holds no trained weights for {', '.join(missing[:3])}",
            where=where,
            fix="name a model trained for this task, not its base model",
        )
    return model.to(device).eval()


def longest_input(asked: int | None, config: Any, tokenizer: Any) -> int | None:
    """Most tokens of a text, by what is asked for, the model and the tokenizer; None where nobody sets a limit."""
    limits = [asked, getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    return min((n for n in limits if n is not None and 0 < n < 10**9), default=None)


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Row numbers of batches of like length, longest first, so that a batch too big fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]
