"""Models that judges run: safetensors only, no remote code, batched by length."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue

from plad.config.base import PACES, PositiveInt
from plad.errors import Findings, PladError, PolicyError
from plad.judges.base import JudgeKind
from plad.policy.fingerprint import model_fingerprint
from plad.policy.resolve import local_folder, locate_model
from plad.records import Example


class ModelJudge(JudgeKind):
    """A judge that runs a model here."""

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

    def placed(self, base: Path, function: str | None = None) -> Self:
        """With the model's folder, where it is one."""
        return self.model_copy(update={"model": locate_model(self.model, base, self.revision)})

    def inputs(self) -> dict[str, JsonValue]:
        """The settings, and the weights whatever their place."""
        return {**self.shaping(apart=("model",)), "weights": model_fingerprint(self.model, self.revision)}

    def check(self, findings: Findings, place: str, rows: Sequence[Example] | None, *, against_target: bool) -> None:
        """Whether the model is here."""
        super().check(findings, place, rows, against_target=against_target)
        try:
            folder = local_folder(self.model, self.revision)
        except PladError as e:
            where = f"{place}.model: {e.where or self.model}"
            findings.fail(place, [PolicyError(e.what, where=where, fix=e.fix)])
            return
        if folder is None:
            findings.not_checked.append(f"{place} {self.model}: whether the hub has it (it is not on this machine)")
        else:
            findings.add("ok", place, self.model)


def load_config_and_tokenizer(section: ModelJudge, where: str) -> tuple[Any, Any]:
    """The model's configuration and tokenizer.

    Raises:
        PolicyError: there is no such model.
    """
    import transformers

    auto: Any = transformers  # its loaders have no types

    options: dict[str, Any] = {"revision": section.revision, "trust_remote_code": False}
    try:
        return (
            auto.AutoConfig.from_pretrained(section.model, **options),
            auto.AutoTokenizer.from_pretrained(section.model, **options),
        )
    except (OSError, ValueError) as e:
        raise PolicyError(f"can't load the model: {e}", where=where, fix="name a folder or hub model") from e


def load_weights(
    auto: Any, section: ModelJudge, where: str, *, needs: Callable[[str], bool] = lambda name: True
) -> Any:
    """The model with its weights, on the device, in evaluation mode.

    Args:
        auto: the transformers class that loads it.
        needs: whether a weight of that name must be in the folder.

    Raises:
        PolicyError: they are no safetensors, or some are missing.
    """
    from plad.policy.backend import choose_device, choose_dtype, no_progress_bars

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
