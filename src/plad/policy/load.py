"""Load, save and adapt a policy: a language model with everything that belongs to it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from plad.config.models import LoraSection, ModelSection, PromptSection
from plad.errors import PolicyError
from plad.policy import lora
from plad.policy.backend import choose_device, choose_dtype, from_pretrained, no_progress_bars
from plad.policy.context import context_of, fits
from plad.policy.folder import first_line, load_config, load_tokenizer, write_format
from plad.policy.prompt import PromptFormat, choose_pad, make_prompt_format
from plad.policy.resolve import check_folder, is_adapter, is_hub_name, resolve_model

UNBOUNDED = 1 << 20  # context of a model that states none (relative positions), tokens


@dataclass
class Policy:
    """A language model, decoder-only or encoder-decoder, with its tokenizer.

    Attributes:
        model: a transformers model, or a peft model around one.
        eos_ids: tokens that end an answer.
        pad_id: fills batches; padding is known from lengths, never from this id.
        context: most tokens of prompt and completion together; of each of them where they're `apart`.
        notes: what was decided and why, one line each.
        base: folder or hub name that holds exactly the weights under an adapter; None for weights in memory only.
        base_revision: commit, tag or branch of `base`.
        apart: an encoder-decoder, which reads the prompt in its encoder and writes the completion in its decoder.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt: PromptFormat
    eos_ids: tuple[int, ...]
    pad_id: int
    context: int
    device: torch.device
    dtype: torch.dtype
    notes: list[str] = field(default_factory=list[str])
    base: str | None = None
    base_revision: str | None = None
    apart: bool = False

    def fits(self, prompt: int, completion: int, max_length: int | None = None) -> bool:
        """Whether a prompt and a completion, in tokens, fit the context, and `max_length` together."""
        room = fits(prompt, completion, self.context, apart=self.apart)
        return room and (max_length is None or prompt + completion <= max_length)


def load_policy(
    section: ModelSection,
    *,
    folder: Path | None = None,
    attach_lora: LoraSection | None = None,
    cache_dir: Path | None = None,
) -> Policy:
    """Load a policy from a folder, a hub name or a GGUF file.

    An adapter folder is loaded on its base and merged. A fresh adapter is drawn from torch's generator: seed it first.

    Args:
        folder: takes the place of `section.model`: a fine-tuned model or adapter.
        attach_lora: a fresh adapter to train.
        cache_dir: where converted GGUF models are kept.
    """
    with no_progress_bars():
        source = folder or resolve_model(section.model, section.revision, cache_dir)
        check_folder(source)
        device, why_device = choose_device()
        dtype, why_dtype = choose_dtype(section.dtype, device)
        model, merged = _load_model(source, dtype, section, cache_dir)
        tokenizer = load_tokenizer(source)
    _check_vocabulary(model, tokenizer, source)
    policy = make_policy(cast(PreTrainedModel, cast(nn.Module, model).to(device)), tokenizer, section.prompt)
    name = str(dtype).removeprefix("torch.")
    policy.notes[:0] = [f"dtype {name} ({why_dtype})", f"device {device} ({why_device})"]
    policy.notes += [f"adapter {path} merged into its base" for path in merged]
    on_hub = folder is None and is_hub_name(section.model) and not Path(section.model).exists()
    policy.base = section.model if on_hub else str(source)
    policy.base_revision = section.revision if on_hub else None
    return attach(policy, attach_lora) if attach_lora else policy


def make_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> Policy:
    """A policy around a loaded model and tokenizer."""
    context, apart = context_of(model.config)
    prompt, notes = make_prompt_format(tokenizer, section, model.generation_config, encoder=apart)
    pad_id, pad_note = choose_pad(tokenizer, prompt.eos_ids)
    notes += [pad_note, f"context {context} tokens" if context else "context not limited by the model"]
    if apart:
        start = decoder_start(model)
        notes.append("decoder starts with " + ", ".join(map(str, tokenizer.convert_ids_to_tokens(list(start)))))
        context = context and context - len(start) + 1
    model.eval()
    return Policy(
        model,
        tokenizer,
        prompt,
        prompt.eos_ids,
        pad_id,
        context or UNBOUNDED,
        model.device,
        model.dtype,
        notes,
        apart=apart,
    )


def decoder_start(base: PreTrainedModel) -> tuple[int, ...]:
    """What the decoder reads before a completion: its start token, and the token it is then made to write, if any."""
    start, forced = (_named(base, name) for name in ("decoder_start_token_id", "forced_bos_token_id"))
    if start is None:
        raise PolicyError(
            f"{type(base).__name__} names no decoder_start_token_id, so it is unknown what an answer follows",
            where=base.name_or_path or None,
            fix="set decoder_start_token_id in the model's config.json (T5: the pad token; BART: the end token)",
        )
    return (start,) if forced is None else (start, forced)


def _named(base: PreTrainedModel, name: str) -> int | None:
    """A token id that the generation config names, or else the config."""
    named = getattr(base.generation_config, name, None)
    return getattr(base.config, name, None) if named is None else named


def attach(policy: Policy, section: LoraSection) -> Policy:
    """The policy with a fresh LoRA adapter; its model is wrapped in place."""
    model, note = lora.attach(policy.model, section)
    return replace(policy, model=model, notes=[*policy.notes, note])


def merge_lora(policy: Policy) -> Policy:
    """The policy with its adapter merged into the weights; without an adapter, the policy itself."""
    if not lora.has_adapter(policy.model):
        return policy
    return replace(policy, model=lora.merge(policy.model), base=None, base_revision=None)


def freeze_embeddings(policy: Policy) -> None:
    """Keep the input embeddings, and a head tied to them, fixed in training."""
    embedding_weight(policy.model).requires_grad_(False)


def embedding_weight(model: PreTrainedModel) -> torch.Tensor:
    """The input embeddings: [vocabulary, width]."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a policy in the Hugging Face layout with safetensors: an adapter folder if it has one, else all weights.

    Its tokenizer renders messages as the policy was trained to read them; see `write_format`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with no_progress_bars():
        if not lora.has_adapter(policy.model):
            policy.model.save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType]  # typed in part
        elif policy.base is not None:
            lora.save(policy.model, folder, policy.base, policy.base_revision)
        else:
            raise PolicyError(
                "an adapter can't be saved: the weights under it exist only in memory",
                fix="save them first and load that folder\nor merge the adapter and save all weights",
            )
        write_format(folder, policy.prompt)


def _load_model(
    folder: Path, dtype: torch.dtype, section: ModelSection, cache_dir: Path | None
) -> tuple[PreTrainedModel, list[Path]]:
    """The model of a folder, adapters merged; and the adapter folders that were."""
    if not is_adapter(folder):
        return _load_weights(folder, dtype), []
    adapter = lora.read_adapter(folder)
    if not Path(adapter.base).is_dir() and section.model.endswith(".gguf"):
        resolve_model(section.model, None, cache_dir)  # converts the base again where its cache was emptied
    try:
        base = resolve_model(adapter.base, adapter.revision, cache_dir)
    except PolicyError as e:
        raise PolicyError(
            f"the adapter's base model {adapter.base} can't be used: {e.what}",
            where=str(folder),
            fix=f"put it back there, or correct base_model_name_or_path in adapter_config.json\n{e.fix or ''}".strip(),
        ) from None
    model, merged = _load_model(base, dtype, section, cache_dir)
    return lora.load_merged(model, adapter), [*merged, folder]


def _load_weights(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = load_config(folder)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        loaded: tuple[PreTrainedModel, dict[str, list[str]]] = from_pretrained(
            kind,
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as e:
        raise PolicyError(
            f"the weights can't be loaded: {first_line(e)}",
            where=str(folder),
            fix="copy the model again: its weights are damaged or belong to another config.json",
        ) from None
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PolicyError(
            f"the folder lacks weights of {type(model).__name__} ({missing[0]}{more}); they would be random",
            where=str(folder),
            fix="use the complete language model, head included",
        )
    head = cast(nn.Module, model.get_output_embeddings())
    if config.is_encoder_decoder and head.weight is not embedding_weight(model):
        # T5 v1.1, FLAN and mT5 have a head of their own, but transformers' config says that it is tied; saved like
        # that, other versions would tie it again
        model.config.tie_word_embeddings = False
    return model


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    rows = embedding_weight(model).shape[0]
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > rows:
        raise PolicyError(
            f"the tokenizer has {tokens} tokens, the model only {rows} embedding rows",
            where=str(folder),
            fix="use the tokenizer that belongs to this model",
        )
