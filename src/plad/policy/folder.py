"""What a model folder says of its policy, read without the weights: config, tokenizer, prompt format."""

import copy
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from plad.config.models import LoraSection, ModelSection, PretrainedInit, PromptSection, PruneInit
from plad.errors import PolicyError
from plad.policy import lora
from plad.policy.backend import from_pretrained
from plad.policy.checks.targets import check_targets
from plad.policy.context import text_config
from plad.policy.prompt import PromptFormat, around_text, make_prompt_format
from plad.policy.resolve import is_adapter, read_tensors, resolve_model, weight_files
from plad.rundir.atomic import write_json

_GENERATION = "generation_config.json"
_GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")


def is_encoder_decoder(section: ModelSection) -> bool:
    """Whether a policy is one, by its config."""
    return bool(load_config(_weights_folder(resolve_model(section.model, section.revision))).is_encoder_decoder)


def check_policy(section: ModelSection, role: str, adapters: Mapping[str, LoraSection] | None = None) -> PromptFormat:
    """The prompt format of a policy, made without its weights: shows whether it is there and can be used as asked.

    Args:
        adapters: that will be trained on it, by their place in the config.
    """
    folder = resolve_model(section.model, section.revision)
    try:
        prompt, _, config = read_format(folder, _weights_folder(folder), section.prompt)
    except PolicyError as e:
        where = f"{role}.{e.where}" if (e.where or "").startswith("prompt.") else e.where
        raise PolicyError(e.what, where=where, fix=e.fix) from None
    check_init(getattr(section, "init", None), config, role)
    check_targets(config, adapters or {})
    return prompt


def read_format(
    folder: Path, weights: Path, section: PromptSection
) -> tuple[PromptFormat, list[str], PreTrainedConfig]:
    """Prompt format, notes and config of a model that isn't loaded; an adapter's `weights` are its base's folder."""
    config = load_config(weights)
    generation: GenerationConfig | None = None
    if (weights / _GENERATION).is_file():
        try:
            generation = GenerationConfig.from_pretrained(weights, local_files_only=True)  # pyright: ignore[reportUnknownMemberType]  # typed in part
        except (OSError, ValueError, TypeError, AttributeError) as e:
            raise PolicyError(
                f"generation_config.json can't be read: {first_line(e)}",
                where=str(weights),
                fix="copy it again, or remove it: config.json and the tokenizer then say how answers end",
            ) from None
    encoder = bool(config.is_encoder_decoder)
    return *make_prompt_format(load_tokenizer(folder), section, generation, encoder=encoder), config


def folder_format(folder: Path, section: PromptSection) -> PromptFormat:
    """The prompt format of a model folder, or of an adapter's."""
    return read_format(folder, _weights_folder(folder), section)[0]


def write_format(folder: Path, prompt: PromptFormat) -> None:
    """Write a policy's tokenizer, with the chat template and the end tokens of its training, into its folder.

    Texts and messages that other tools give it become the tokens that it was trained on.
    """
    tokenizer: Any = copy.deepcopy(prompt.tokenizer)
    template = prompt.chat_template()
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(prompt.end_id)
    if not prompt.close and around_text(tokenizer)[1]:
        _open_end(tokenizer, prompt.start)
    tokenizer.save_pretrained(folder)
    if not is_adapter(folder) and not _ends_as(folder, prompt):
        ends = {"eos_token_id": list(prompt.eos_ids)}
        write_json(folder / _GENERATION, {**_generation(folder), **ends})


def has_format(folder: Path, prompt: PromptFormat) -> bool:
    """Whether `write_format` would change nothing of note: the chat template and the end tokens."""
    tokenizer: Any = prompt.tokenizer
    return prompt.chat_template() in (None, tokenizer.chat_template) and _ends_as(folder, prompt)


def _ends_as(folder: Path, prompt: PromptFormat) -> bool:
    ends = list(prompt.eos_ids)
    return _generation(folder).get("eos_token_id") in (ends, ends[0] if len(ends) == 1 else None)


def _generation(folder: Path) -> dict[str, Any]:
    file = folder / _GENERATION
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _open_end(tokenizer: Any, start: Sequence[int]) -> None:
    """Let a tokenizer that closes every text no longer do so: a prompt goes on."""
    first = tokenizer.convert_ids_to_tokens(list(start))
    tokenizer._add_eos_token = False
    tokenizer.init_kwargs.pop("add_eos_token", None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*first, "$A"]), special_tokens=list(zip(first, start, strict=True))
    )


def check_init(init: PretrainedInit | PruneInit | None, config: PreTrainedConfig, role: str) -> None:
    """Refuse a pruned student that can't be made of a model."""
    if not isinstance(init, PruneInit):
        return
    layers: int = text_config(config).num_hidden_layers
    if config.is_encoder_decoder:
        raise PolicyError(
            "an encoder-decoder can't be pruned",
            where=f"{role}.init",
            fix=f"set `{role}.init: {{type: pretrained}}` with a smaller model of the family",
        )
    if init.layers >= layers:
        raise PolicyError(
            f"the model has {layers} layers, so {init.layers} can't be what is kept of them",
            where=f"{role}.init.layers",
            fix=f"give a number below {layers}",
        )


def _weights_folder(folder: Path) -> Path:
    """The folder under an adapter, or under an adapter on an adapter; another folder itself."""
    while is_adapter(folder):
        adapter = lora.read_adapter(folder)
        folder = resolve_model(adapter.base, adapter.revision)
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; an adapter folder without one falls back to its base's."""
    files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    if is_adapter(folder) and not any((folder / name).is_file() for name in files):
        folder = Path(lora.read_adapter(folder).base)
    try:
        # A class that says "as tokenizer.json stands" is taken at its word: AutoTokenizer replaces it for some
        # model types (qwen2), pre-tokenizer and special tokens included.
        exact = (folder / "tokenizer.json").is_file() and _tokenizer_class(folder) in _GENERIC
        loader = PreTrainedTokenizerFast if exact else AutoTokenizer
        tokenizer: PreTrainedTokenizerBase = from_pretrained(loader, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as e:
        raise PolicyError(
            f"the tokenizer can't be loaded: {first_line(e)}",
            where=str(folder),
            fix="put the model's tokenizer files (tokenizer.json, tokenizer_config.json) into the folder",
        ) from None
    if len(tokenizer) == 0:
        raise PolicyError(
            "the folder holds no tokenizer",
            where=str(folder),
            fix="put the model's tokenizer files (tokenizer.json, tokenizer_config.json) into it",
        )
    return tokenizer


def _tokenizer_class(folder: Path) -> str | None:
    file = folder / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None


def load_config(folder: Path) -> PreTrainedConfig:
    """The model's config, if it is one of a language model that transformers itself knows."""
    try:
        config: PreTrainedConfig = from_pretrained(AutoConfig, folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        if "trust_remote_code" in str(e):
            raise PolicyError(
                "the model needs Python code from its own repository; plad never runs code that comes with a model",
                where=str(folder),
                fix="use a model whose architecture is part of transformers (many such models have a converted copy)",
            ) from None
        raise PolicyError(
            f"config.json can't be read: {first_line(e)}",
            where=str(folder),
            fix="use an architecture of the installed transformers, or update transformers",
        ) from None
    encoder = bool(config.is_encoder_decoder)
    mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if encoder else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    known = cast(Mapping[str, str | tuple[str, ...]], mapping).get(config.model_type)
    names = {known} if isinstance(known, str) else set(known or ())
    named = set[str](config.architectures or ())
    if not names or (named and not named & names):
        what = ", ".join(sorted(named)) or config.model_type
        raise PolicyError(
            f"{what} is not a language model with a head; causal and sequence-to-sequence models are supported",
            where=str(folder),
            fix="use one such as Llama, Qwen, Mistral, Gemma, Phi, GPT-2, GPT-Neo, GPT-NeoX, OPT, T5 or BART",
        )
    return config


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is; a tied head counts once.

    Attributes:
        parameters: an adapter's among them.
        disk: bytes of the weights, as they are stored.
        dtype: that most weights are stored in.
    """

    parameters: int
    layers: int
    disk: int
    dtype: str


def model_size(folder: Path) -> Size:
    """The size of a model or of an adapter with its base, from config.json and headers: nothing is loaded.

    Raises:
        PolicyError: a file can't be read.
    """
    base = _weights_folder(folder)
    folders = list(dict.fromkeys((base, folder)))
    by_type: Counter[str] = Counter()
    for shape, dtype in (tensor for f in folders for tensor in read_tensors(f).values()):
        by_type[dtype] += math.prod(shape)
    disk = sum(file.stat().st_size for f in folders for file in weight_files(f))
    most = by_type.most_common(1)
    layers: int = text_config(load_config(base)).num_hidden_layers
    return Size(by_type.total(), layers, disk, most[0][0] if most else "")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
