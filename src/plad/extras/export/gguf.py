"""The student as one GGUF file: a Llama with its tokenizer, unquantised, as llama.cpp and transformers read it."""

import importlib.util
import json
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from plad.config.models import PromptSection
from plad.data.formats import read_examples_jsonl
from plad.errors import MissingExtraError, PolicyError
from plad.extras.export.handover import Handover
from plad.extras.export.ollama import modelfile
from plad.policy.chat_template import literal
from plad.report.parts.usage import file_lines, told
from plad.rundir.atomic import atomic_file, write_text

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy.typing import NDArray
    from torch import Tensor

    from plad.policy.prompt import PromptFormat

log = logging.getLogger("plad")

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}  # a tokenizer's split, and llama.cpp's name for it
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_PROBES = 50  # texts of the run that a written tokenizer is tried on
_OTHER_WAY = "plad export RUN --to merged\nthen convert_hf_to_gguf.py of llama.cpp, which knows more models"


class _Bpe(TypedDict):
    """The vocabulary in a tokenizer.json."""

    type: str
    vocab: dict[str, int]
    merges: list[str | list[str]]
    byte_fallback: NotRequired[bool]


class _Added(TypedDict):
    """A token beside the vocabulary."""

    id: int
    content: str
    special: bool


class _Step(TypedDict):
    """A step of a normalizer or a pre-tokenizer."""

    type: str
    normalizers: NotRequired[list["_Step"]]
    pretokenizers: NotRequired[list["_Step"]]
    add_prefix_space: NotRequired[bool]
    use_regex: NotRequired[bool]
    individual_digits: NotRequired[bool]
    pattern: NotRequired[dict[str, str]]
    prepend_scheme: NotRequired[str]


class _Backend(TypedDict):
    """What is read of a tokenizer.json."""

    model: _Bpe
    added_tokens: list[_Added]
    normalizer: _Step | None
    pre_tokenizer: _Step | None


def export_gguf(handover: Handover) -> str:
    """Write the student as one GGUF file, with an Ollama Modelfile beside it."""
    out, student, prompt = handover.place("student.gguf"), handover.student(), handover.prompt_format()
    beside, tokens = handover.free(out.with_name("Modelfile")), handover.max_new_tokens()
    write_gguf(student, out, name=handover.run.resolve().name, prompt=prompt, dtype=handover.dtype)
    write_text(beside, modelfile(out.name, prompt, tokens))
    _try_tokenizer(student, out, handover.run / "data/test.jsonl")
    return f"wrote {out} and {beside}\n\n{told(file_lines(str(out), str(beside), tokens))}"


def _try_tokenizer(student: Path, out: Path, examples: Path) -> None:
    """Warn where transformers would cut the run's own texts into other tokens when it reads the file."""
    from transformers import AutoTokenizer

    from plad.policy.folder import load_tokenizer

    rows = read_examples_jsonl(examples)[:_PROBES] if examples.is_file() else []
    texts = [t for e in rows for t in (e.prompt if isinstance(e.prompt, str) else "", *e.references) if t]
    ours: Any = load_tokenizer(student)
    loader: Any = AutoTokenizer  # whose types are partial
    theirs: Any = loader.from_pretrained(out.parent, gguf_file=out.name, local_files_only=True)
    different = sum(ours(t).input_ids != theirs(t).input_ids for t in texts)
    if different:
        log.warning(
            "transformers, reading %s, cuts %d of %d texts into other tokens than the student learnt; llama.cpp knows "
            "the file's own way to split text",
            *(out, different, len(texts)),
        )


def write_gguf(
    folder: Path, out: Path, *, name: str, prompt: "PromptFormat | None" = None, dtype: str | None = None
) -> None:
    """Write a model folder as one GGUF file: chat template, end tokens and BOS are those of training.

    Tensors are copied one at a time, so the memory needed is that of the largest one.

    Args:
        folder: a Hugging Face folder: config.json, safetensors, tokenizer.json.
        out: the file to write; it appears whole or not at all.
        name: what the file says the model is called.
        prompt: how it reads prompts. Default: as its folder says.
        dtype: of the weights. Default: the precision they have.

    Raises:
        MissingExtraError: the `gguf` package is not installed.
        PolicyError: the model is no plain Llama, or its tokenizer has no name in llama.cpp.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError(
            "writing a GGUF file needs the package gguf", where=str(folder), fix="pip install 'plad[gguf]'"
        )
    import gguf

    from plad.policy.folder import folder_format, load_config

    config: Any = load_config(folder)
    _check(config, folder)
    config.dtype = dtype or config.dtype
    prompt = prompt or folder_format(folder, PromptSection())
    with _opened(folder, dtype) as tensors, atomic_file(out) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        _add_shape(writer, config, name)
        spaced = _add_tokenizer(writer, prompt.tokenizer, config.vocab_size, folder)
        _add_format(writer, prompt, spaced=spaced)
        _add_tensors(writer, tensors, config, folder)
        writer.close()


def _check(config: Any, folder: Path) -> None:
    """Refuse what the file's `llama` architecture doesn't say."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    odd: dict[str, bool] = {
        f"it is a {config.model_type} model": config.model_type != "llama",
        "its attention has biases": getattr(config, "attention_bias", False),
        "its MLP has biases": getattr(config, "mlp_bias", False),
        "it scales its rotary positions": rope.get("rope_type", "default") != "default",
        f"its activation is {getattr(config, 'hidden_act', '?')}": getattr(config, "hidden_act", "silu") != "silu",
    }
    reasons = [reason for reason, holds in odd.items() if holds]
    if reasons:
        raise PolicyError(
            f"can't be written as GGUF, which plad does for plain Llama models alone: {reasons[0]}",
            where=str(folder),
            fix=_OTHER_WAY,
        )


def _add_shape(writer: "GGUFWriter", config: Any, name: str) -> None:
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
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: "GGUFWriter", tokenizer: Any, rows: int, folder: Path) -> bool:
    """The vocabulary, one token an embedding row, and how text is split into it; whether it puts a blank before one."""
    backend: _Backend = json.loads(tokenizer.backend_tokenizer.to_str())
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
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    return pieces and _adds_space(backend)


def _add_format(writer: "GGUFWriter", prompt: "PromptFormat", *, spaced: bool) -> None:
    """Chat template, end tokens, and whether a text begins with BOS.

    llama.cpp puts BOS before every text if the file says so, and takes it away from what a chat template wrote.
    """
    tokenizer: Any = prompt.tokenizer
    template: str | None = prompt.chat_template() or tokenizer.chat_template
    begins = [tokenizer.bos_token_id] == list(prompt.start)
    if begins and isinstance(template, str):
        begins = prompt.encode_prompt("a")[:1] == list(prompt.start)
    writer.add_add_bos_token(begins)
    writer.add_eos_token_id(prompt.end_id)
    others = [i for i in prompt.eos_ids if i != prompt.end_id]
    if others:
        writer.add_eot_token_id(others[0])
    if not isinstance(template, str):
        return
    if spaced and prompt.start:  # llama.cpp puts the blank after a control token itself
        bos = prompt.text_of(prompt.start)
        template = template.replace(f'{{{{- "{bos} ', f'{{{{- "{bos}', 1)
    if "eos_token" in template and tokenizer.eos_token_id != prompt.end_id:
        template = f"{{%- set eos_token = {literal(tokenizer.eos_token or '')} %}}{template}"
    writer.add_chat_template(template)


def _no_tokenizer(what: str, folder: Path) -> PolicyError:
    return PolicyError(f"its tokenizer can't be written as GGUF: {what}", where=str(folder), fix=_OTHER_WAY)


def _kind(
    token_id: int, token: str, added: Mapping[int, _Added], known: Mapping[int, str], unknown: int | None, pieces: bool
) -> int:
    if token_id not in known:
        return _UNUSED
    if pieces and token_id == unknown:
        return _UNKNOWN
    if token_id in added:
        return _CONTROL if added[token_id]["special"] else _USER
    return _BYTE if pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">") else _NORMAL


def _steps(part: _Step | None) -> list[_Step]:
    return [] if part is None else part.get("normalizers") or part.get("pretokenizers") or [part]


def _split_name(part: _Step | None, folder: Path) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits text before its merges."""
    match _steps(part):
        case [*before, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": splits}]:
            match before, splits:
                case [], True:
                    return "gpt-2"
                case [{"type": "Digits", "individual_digits": True}], _:
                    return "smollm"
                case [{"type": "Split", "pattern": {"Regex": pattern}}], False if pattern in _SPLITS:
                    return _SPLITS[pattern]
                case _:
                    pass
        case _:
            pass
    raise _no_tokenizer("plad does not know llama.cpp's name for how it splits text", folder)


def _adds_space(backend: _Backend) -> bool:
    return any(n["type"] == "Prepend" for n in _steps(backend["normalizer"])) or any(
        s["type"] == "Metaspace" and s.get("prepend_scheme", "always") != "never"
        for s in _steps(backend["pre_tokenizer"])
    )


@contextmanager
def _opened(folder: Path, dtype: str | None) -> Generator[dict[str, Callable[[], "Tensor"]]]:
    """The folder's tensors by name, each read, in the given type, when it is asked for."""
    import torch
    from safetensors import safe_open

    def read(get: Callable[[str], "Tensor"], name: str) -> "Tensor":
        return get(name).to(getattr(torch, dtype)) if dtype else get(name)

    with ExitStack() as stack:
        tensors: dict[str, Callable[[], Tensor]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            opened: Any = safe_open(file, framework="pt")
            handle: Any = stack.enter_context(opened)
            tensors |= {name: partial(read, handle.get_tensor, name) for name in list[str](handle.keys())}
        if not tensors:
            raise PolicyError("no weights in safetensors", where=str(folder), fix="plad export RUN --to merged")
        yield tensors


def _add_tensors(
    writer: "GGUFWriter", tensors: Mapping[str, Callable[[], "Tensor"]], config: Any, folder: Path
) -> None:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    written: list[tuple[str, str]] = []
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


def _values(tensor: "Tensor", name: str, config: Any) -> "tuple[NDArray[Any], GGMLQuantizationType | None]":
    """A tensor as the file holds it, and its type there; norms are always float32."""
    import gguf
    import torch

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads:  # rows of a query or key projection [heads x width, hidden], rotary halves in turn, as llama.cpp wants
        rows, hidden = tensor.shape
        tensor = tensor.reshape(heads, 2, rows // heads // 2, hidden).transpose(1, 2).reshape(rows, hidden)
    if tensor.ndim == 1:
        tensor = tensor.float()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint8).numpy(), gguf.GGMLQuantizationType.BF16
    return tensor.contiguous().numpy(), None
