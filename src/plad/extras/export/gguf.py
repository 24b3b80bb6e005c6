"""Writing GGUF files: a Llama with its tokenizer, unquantised, as llama.cpp and transformers read it."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plad.errors import MissingExtraError, PolicyError
from plad.rundir.directory import atomic_file

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}  # a tokenizer's split, and llama.cpp's name for it
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_OTHER_WAY = "plad export RUN --to merged\nthen convert_hf_to_gguf.py of llama.cpp, which knows more models"


def write_gguf(folder: Path, out: Path, *, name: str) -> None:
    """Write a model folder as one GGUF file, its weights in the precision they have.

    Tensors are copied one at a time, so the memory needed is that of the largest one.

    Args:
        folder: a Hugging Face folder: config.json, safetensors, tokenizer.json.
        out: the file to write; it appears whole or not at all.
        name: what the file says the model is called.

    Raises:
        MissingExtraError: the `gguf` package is not installed.
        PolicyError: the model is no plain Llama, or its tokenizer has no name in llama.cpp.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError(
            "writing a GGUF file needs the package gguf", where=str(folder), fix="pip install 'plad[gguf]'"
        )
    import gguf
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    _check(config, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with _opened(folder) as tensors, atomic_file(out) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        _add_shape(writer, config, name)
        _add_tokenizer(writer, tokenizer, config.vocab_size, folder)
        _add_tensors(writer, tensors, config, folder)
        writer.close()


def _check(config: Any, folder: Path) -> None:
    """Refuse what the file's `llama` architecture doesn't say."""
    odd = {
        f"it is a {config.model_type} model": config.model_type != "llama",
        "its attention has biases": getattr(config, "attention_bias", False),
        "its MLP has biases": getattr(config, "mlp_bias", False),
        "it scales its rotary positions": _rope(config).get("rope_type", "default") != "default",
        f"its activation is {getattr(config, 'hidden_act', '?')}": getattr(config, "hidden_act", "silu") != "silu",
    }
    reasons = [reason for reason, holds in odd.items() if holds]
    if reasons:
        raise PolicyError(
            f"can't be written as GGUF, which plad does for plain Llama models alone: {reasons[0]}",
            where=str(folder),
            fix=_OTHER_WAY,
        )


def _rope(config: Any) -> Mapping[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


def _add_shape(writer: Any, config: Any, name: str) -> None:
    import gguf

    width = config.head_dim or config.hidden_size // config.num_attention_heads
    types = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[types.get(str(config.dtype).removeprefix("torch."), "ALL_F32")])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any, rows: int, folder: Path) -> None:
    """The vocabulary, one token an embedding row, and how text is split into it."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model["type"] != "BPE":
        raise _no_tokenizer(f"a {model['type']} vocabulary", folder)
    added = {t["id"]: t for t in backend["added_tokens"]}
    by_id = {i: token for token, i in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    if max(by_id) >= rows:
        raise _no_tokenizer(f"{max(by_id) + 1:,} tokens for {rows:,} embedding rows", folder)
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(rows)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    pieces = bool(model.get("byte_fallback"))
    if pieces:
        ranks = {merge.replace(" ", "", 1): float(-i) for i, merge in enumerate(merges)}
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([ranks.get(t, float(-len(merges))) for t in tokens])
        writer.add_add_space_prefix(_adds_space(backend))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split_name(backend.get("pre_tokenizer"), folder))
    writer.add_token_list(tokens)
    writer.add_token_types([_kind(i, t, added, by_id, tokenizer.unk_token_id, pieces) for i, t in enumerate(tokens)])
    writer.add_token_merges(merges)
    first = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id])
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _no_tokenizer(what: str, folder: Path) -> PolicyError:
    return PolicyError(f"its tokenizer can't be written as GGUF: {what}", where=str(folder), fix=_OTHER_WAY)


def _kind(
    token_id: int, token: str, added: Mapping[int, Any], known: Mapping[int, str], unknown: int | None, pieces: bool
) -> int:
    if token_id not in known:
        return _UNUSED
    if pieces and token_id == unknown:
        return _UNKNOWN
    if token_id in added:
        return _CONTROL if added[token_id]["special"] else _USER
    return _BYTE if pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">") else _NORMAL


def _steps(part: Mapping[str, Any] | None, inner: str) -> Sequence[Mapping[str, Any]]:
    if part is None:
        return []
    return part[inner] if part["type"] == "Sequence" else [part]


def _split_name(part: Mapping[str, Any] | None, folder: Path) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits text before its merges."""
    steps = list(_steps(part, "pretokenizers"))
    if steps and steps[-1]["type"] == "ByteLevel" and not steps[-1]["add_prefix_space"]:
        before = steps[:-1]
        if not before and steps[-1]["use_regex"]:
            return "gpt-2"
        if len(before) == 1 and before[0]["type"] == "Digits" and before[0]["individual_digits"]:
            return "smollm"
        pattern = before[0]["pattern"].get("Regex") if len(before) == 1 and before[0]["type"] == "Split" else None
        if pattern in _SPLITS and not steps[-1]["use_regex"]:
            return _SPLITS[pattern]
    raise _no_tokenizer("plad does not know llama.cpp's name for how it splits text", folder)


def _adds_space(backend: Mapping[str, Any]) -> bool:
    normalizers = _steps(backend.get("normalizer"), "normalizers")
    splits = _steps(backend.get("pre_tokenizer"), "pretokenizers")
    return any(n["type"] == "Prepend" for n in normalizers) or any(
        s["type"] == "Metaspace" and s.get("prepend_scheme", "always") != "never" for s in splits
    )


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Any]]:
    """The folder's tensors by name, each read when it is asked for."""
    from contextlib import ExitStack

    from safetensors import safe_open

    with ExitStack() as stack:
        found: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            handle = stack.enter_context(safe_open(file, framework="pt"))
            found |= {name: (lambda name=name, handle=handle: handle.get_tensor(name)) for name in handle.keys()}  # noqa: SIM118
        if not found:
            raise PolicyError("no weights in safetensors", where=str(folder), fix="plad export RUN --to merged")
        yield found


def _add_tensors(writer: Any, tensors: Mapping[str, Any], config: Any, folder: Path) -> None:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    written = []
    for name in sorted(tensors):
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue  # the file says the same by leaving it out
        theirs = names.get_name(name, try_suffixes=(".weight",))
        if theirs is None:
            raise PolicyError(f"a Llama in GGUF has no place for {name}", where=str(folder), fix=_OTHER_WAY)
        data, kind = _values(tensors[name](), theirs, config)
        writer.add_tensor_info(theirs, data.shape, data.dtype, data.nbytes, raw_dtype=kind)
        written.append((name, theirs))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, theirs in written:
        writer.write_tensor_data(_values(tensors[name](), theirs, config)[0])


def _values(tensor: Any, name: str, config: Any) -> tuple[Any, Any]:
    """A tensor as the file holds it, and its type there; norms are always float32."""
    import gguf
    import torch

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads:
        tensor = _interleaved(tensor, heads)
    if tensor.ndim == 1:
        tensor = tensor.float()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint8).numpy(), gguf.GGMLQuantizationType.BF16
    return tensor.contiguous().numpy(), None


def _interleaved(weight: Any, heads: int) -> Any:
    """The rows of a query or key projection [heads x width, hidden] as llama.cpp wants them: rotary halves in turn."""
    rows, hidden = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, hidden).transpose(1, 2).reshape(rows, hidden)
