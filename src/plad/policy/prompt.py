"""How a prompt becomes tokens, and where a completion begins and ends.

A completion is tokenised on its own and its ids are appended to the prompt's: the boundary never
depends on how two texts merge. It ends with exactly one end-of-sequence token, which belongs to it and
to its loss; what is padding is known from lengths, never from token ids, so a pad token that equals the
end token does no harm. Text of users and models is data: a control token's name inside it is tokenised
as the letters it consists of.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, cast

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from plad.config.models import PromptSection
from plad.errors import PolicyError
from plad.policy.chat_template import (
    around_prompt,
    closed_chat,
    plain_chat,
    read_section,
    system_chat,
    template_chat,
)
from plad.records import Prompt

log = logging.getLogger("plad")

_MARK = "\ue123"  # a private-use character that no chat template writes


@dataclass(frozen=True)
class PromptFormat:
    """Turns prompts and completions into token ids of one policy, and ids back into text.

    Attributes:
        kind: chat (the tokenizer's chat template), template (the config's) or plain.
        template: the config's, where kind is template; where it is chat, the chat template, if not the tokenizer's.
        separator: text between a plain prompt and its completion, tokenised with the completion.
        system: system message put before a plain prompt in chat format.
        start: ids that the tokenizer puts before every text (a BOS token, or nothing).
        end_id: the token that ends a completion.
        eos_ids: every token that ends an answer while sampling; holds `end_id`.
        close: ids that the tokenizer puts after every text, where the prompt is all that an encoder reads.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: Literal["chat", "template", "plain"]
    template: str | None
    separator: str
    system: str | None
    start: tuple[int, ...]
    end_id: int
    eos_ids: tuple[int, ...]
    close: tuple[int, ...] = ()

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids up to where the completion begins, with BOS exactly once if the model uses one.

        Of an encoder-decoder they are the encoder's whole input, closed as its tokenizer closes a text.
        """
        ids = self._open_prompt(prompt)
        closed = not self.close or tuple(ids[-len(self.close) :]) == self.close
        return ids if closed else [*ids, *self.close]

    def _open_prompt(self, prompt: Prompt) -> list[int]:
        if self.kind == "chat":
            ids = self._render(self.messages(prompt), self.template)
            while self.start and ids[: 2 * len(self.start)] == [*self.start, *self.start]:
                ids = ids[len(self.start) :]
            return ids
        text = _plain_text(prompt, self.kind)
        if self.kind == "plain":
            return [*self.start, *self._encode_text(text)]
        ids = self._render([{"role": "user", "content": text}], around_prompt(self.template or "{prompt}"))
        return ids if ids[: len(self.start)] == list(self.start) else [*self.start, *ids]

    def text(self, prompt: Prompt) -> str:
        """A prompt as the text that the tokenizer, left to itself, turns into its tokens."""
        if self.kind == "chat":
            text = cast(
                str,
                self.tokenizer.apply_chat_template(  # pyright: ignore[reportUnknownMemberType]  # typed in part
                    self.messages(prompt), chat_template=self.template, add_generation_prompt=True, tokenize=False
                ),
            )
        else:
            text = (self.template or "{prompt}").replace("{prompt}", _plain_text(prompt, self.kind))
        return text.removeprefix(self.text_of(self.start))

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a completion, ended by exactly one end-of-sequence token."""
        return [*self._encode_text(self.separator + text), self.end_id]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens and outer white space."""
        kept = [i for i in token_ids if i not in self.eos_ids]
        text = self.tokenizer.decode(  # pyright: ignore[reportUnknownMemberType]  # typed in part
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text.strip()

    def describe(self) -> dict[str, object]:
        """Everything that shapes token ids beside the tokenizer, for fingerprints."""
        template = self.template if self.kind == "template" else None
        if self.kind == "chat":
            text = self._own_template()
            template = "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]
        described: dict[str, object] = {
            "kind": self.kind,
            "template": template,
            "separator": self.separator,
            "system": self.system,
            "bos": list(self.start),
            "end": self.end_id,
            "eos": list(self.eos_ids),
        }
        return {**described, "close": list(self.close)} if self.close else described

    def chat_template(self) -> str | None:
        """A chat template under which a message becomes the tokens of a prompt; None where the tokenizer's does so.

        A message's content is a row's prompt. What a tokenizer does at a text's beginning differs: the first way to
        write it is taken under which a prompt, and its answer if one can, become exactly the tokens of training.
        """
        bos, end, close = (self.text_of(ids) for ids in (self.start, (self.end_id,), self.close))
        section = PromptSection.model_validate({"separator": self.separator, "system": self.system})
        if self.kind == "chat":
            if not self.system:
                return None
            return system_chat(section.model_copy(update={"format": "chat"}), self._own_template())
        write = plain_chat if self.kind == "plain" else template_chat
        said = {"format": "plain"} if self.kind == "plain" else {"template": self.template}
        section, found = section.model_copy(update=said), list[tuple[bool, str]]()
        for start, join in product(dict.fromkeys((bos, f"{bos} ", "")), (self.separator, f" {self.separator}")):
            template = write(section, start=start, join=join, end=end)
            template = closed_chat(template, close) if close else template
            found.append((self._is_exact(template), template))
            if found[-1][0] and (close or self._is_exact(template, answered=True)):
                return template
        exact = [template for holds, template in found if holds]
        if not exact:
            log.warning(
                "the tokenizer renders no chat template into the very tokens of training: give texts, not messages"
            )
        return [*exact, found[0][1]][0]

    def _is_exact(self, template: str, *, answered: bool = False) -> bool:
        text, messages = "Is it?", [{"role": "user", "content": "Is it?"}]
        ids = self.encode_prompt(text)
        if answered:
            messages, ids = [*messages, {"role": "assistant", "content": text}], ids + self.encode_completion(text)
        return self._render(messages, template) == ids

    def _own_template(self) -> str:
        return self.template or self.tokenizer.get_chat_template()  # pyright: ignore[reportUnknownMemberType]  # typed in part

    def text_of(self, ids: Sequence[int]) -> str:
        """Control tokens as a template or a text names them."""
        return "".join(_name(self.tokenizer, i) for i in ids)

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """A prompt in chat format, as messages."""
        if isinstance(prompt, str):
            system = [{"role": "system", "content": self.system}] if self.system else []
            return [*system, {"role": "user", "content": prompt}]
        if not prompt:
            raise PolicyError("the prompt holds no messages")
        if prompt[-1]["role"] == "assistant":
            raise PolicyError(
                "the last message of the prompt is the assistant's; nothing is left to answer",
                fix="end the prompt with the user's message and put the answer in the reference column",
            )
        return [{"role": m["role"], "content": m["content"]} for m in prompt]

    def _render(self, messages: list[dict[str, str]], template: str | None) -> list[int]:
        try:
            ids = self.tokenizer.apply_chat_template(  # pyright: ignore[reportUnknownMemberType]  # typed in part
                messages,
                chat_template=template,
                add_generation_prompt=True,
                sanitize_control_tokens=True,
                return_dict=False,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as e:
            roles = ", ".join(m["role"] for m in messages)
            raise PolicyError(
                f"the chat template refused a prompt (roles: {roles}): {e}",
                where=_place(self.tokenizer),
                fix="drop `prompt.system` or the system message\n"
                "or set `prompt.template` to plain text that holds {prompt}",
            ) from None
        return cast(list[int], ids)

    def _encode_text(self, text: str) -> list[int]:
        return _encode(self.tokenizer, text, add_special_tokens=False, split_special_tokens=True, verbose=False)


def make_prompt_format(
    tokenizer: PreTrainedTokenizerBase,
    section: PromptSection,
    generation_config: GenerationConfig | None = None,
    *,
    encoder: bool = False,
) -> tuple[PromptFormat, list[str]]:
    """The prompt format of a policy, and one-line notes on what was decided and why.

    Args:
        generation_config: the model's, which may name further end-of-sequence tokens.
        encoder: whether prompts are read by an encoder: a text of its own, with its own end.
    """
    section, own, known = _as_written(tokenizer, section)
    kind, why = _choose_kind(tokenizer, section)
    why = "auto: the chat template says so" if known else why
    eos_ids, notes = find_eos_ids(tokenizer, generation_config)
    end_id, why_end = _choose_end(tokenizer, kind, eos_ids)
    start, close = around_text(tokenizer)
    if section.separator and kind == "chat":
        raise PolicyError(
            f"a separator is for plain prompts, but the prompt format is chat ({why})",
            where="prompt.separator",
            fix="remove `prompt.separator`\nor set `prompt.format: plain`",
        )
    if section.system is not None and kind != "chat":
        raise PolicyError(
            f"prompt.system needs the chat format, but the prompt format is {kind} ({why})",
            where="prompt.system",
            fix="write the instruction into `prompt.template`\nor remove `prompt.system`",
        )
    prompt_format = PromptFormat(
        *(tokenizer, kind, section.template or own, section.separator, section.system, start, end_id, eos_ids),
        close=close if encoder else (),
    )
    notes.insert(0, f"prompt format {kind} ({why})")
    notes.append(f"end token {_name(tokenizer, end_id)} ({why_end})")
    if len(eos_ids) > 1:
        notes.append("sampling stops at " + ", ".join(_name(tokenizer, i) for i in eos_ids))
    return prompt_format, notes


def find_eos_ids(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None
) -> tuple[tuple[int, ...], list[str]]:
    """Every token that ends an answer: the tokenizer's, and those of the generation config.

    An id of the generation config that is ordinary text in this tokenizer (a default nobody set) is left out. The
    tokenizer's comes first; beside them, notes.
    """
    eos = token_id(tokenizer, "eos")
    ids = [] if eos is None else [eos]
    notes: list[str] = []
    named: int | list[int] | None = getattr(generation_config, "eos_token_id", None)
    for i in [named] if isinstance(named, int) else (named or []):
        if i in ids:
            continue
        if i in tokenizer.added_tokens_decoder:
            ids.append(i)
        else:
            notes.append(f"end token {i} of the generation config ignored (ordinary text in this tokenizer)")
    if not ids:
        raise PolicyError(
            "the tokenizer has no end-of-sequence token, so an answer could never end",
            where=_place(tokenizer),
            fix="set eos_token in the model's tokenizer_config.json to an existing special token\n"
            "or eos_token_id in its generation_config.json",
        )
    return tuple(ids), notes


def token_id(tokenizer: PreTrainedTokenizerBase, role: Literal["eos", "pad", "unk", "bos"]) -> int | None:
    """The id of a tokenizer's special token, or None where it has none."""
    value = getattr(tokenizer, f"{role}_token_id")
    return None if value is None else int(value)


def choose_pad(tokenizer: PreTrainedTokenizerBase, eos_ids: Sequence[int]) -> tuple[int, str]:
    """A token id to fill batches with, and a note; padding is known from lengths, so its value is never looked at."""
    pad = token_id(tokenizer, "pad")
    if pad is not None and pad not in eos_ids:
        return pad, f"pad token {_name(tokenizer, pad)} (the tokenizer's)"
    why = "the tokenizer has none" if pad is None else "the tokenizer's is the end token"
    extra = sorted(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    for i in (token_id(tokenizer, "unk"), *extra, 0):
        if i is not None and i not in eos_ids:
            return i, f"pad token {_name(tokenizer, i)} ({why}; padding is known from lengths)"
    return 1, f"pad token {_name(tokenizer, 1)} ({why}; padding is known from lengths)"


def _as_written(tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> tuple[PromptSection, str | None, bool]:
    """The section, filled from a chat template that plad wrote where it leaves the format open; the model's own chat
    template below that; and whether the section was filled."""
    written = read_section(getattr(tokenizer, "chat_template", None))
    if written is None:
        return section, None, False
    said, template = written
    own = template if said.format == "chat" else None
    if section.format != "auto" or section.template is not None:
        return section, own if section.format == "chat" else None, False
    set_here = {name: getattr(section, name) for name in section.model_fields_set - {"format", "template"}}
    return said.model_copy(update=set_here), own, True


def _choose_kind(
    tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> tuple[Literal["chat", "template", "plain"], str]:
    if section.template is not None:
        return "template", "set by prompt.template"
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if section.format == "chat" and not has_template:
        raise PolicyError(
            "prompt.format is chat, but the tokenizer has no chat template",
            where=_place(tokenizer),
            fix="set `prompt.template` to text that holds {prompt}\nor `prompt.format: plain`",
        )
    if section.format != "auto":
        return section.format, "set by prompt.format"
    if has_template:
        return "chat", "auto: the tokenizer has a chat template"
    return "plain", "auto: the tokenizer has no chat template"


def _choose_end(tokenizer: PreTrainedTokenizerBase, kind: str, eos_ids: tuple[int, ...]) -> tuple[int, str]:
    if kind == "chat":
        closing = _closing_token(tokenizer)
        if closing in eos_ids:
            return closing, "the chat template closes an answer with it"
    if token_id(tokenizer, "eos") is not None:
        return eos_ids[0], "the tokenizer's"
    return eos_ids[0], "the generation config's"


def _closing_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The control token that follows an assistant's message in the chat template, or -1."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)  # pyright: ignore[reportUnknownMemberType]  # typed in part
    except (TemplateError, TypeError, ValueError, KeyError):
        return -1
    assert isinstance(text, str)
    after = text.rpartition(_MARK)[2]
    control = [(i, t.content) for i, t in tokenizer.added_tokens_decoder.items() if not t.content.isspace()]
    first = min(((after.index(token), -len(token), i) for i, token in control if token in after), default=None)
    return -1 if first is None else first[2]


def around_text(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer puts before and after every text."""
    bare = _encode(tokenizer, "a", add_special_tokens=False)
    full = _encode(tokenizer, "a")
    for i in range(len(full) - len(bare) + 1):
        if full[i : i + len(bare)] == bare:
            return tuple(full[:i]), tuple(full[i + len(bare) :])
    return (), ()


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, **how: bool) -> list[int]:
    return tokenizer.encode(text, **how)  # pyright: ignore[reportUnknownMemberType, reportArgumentType]  # typed in part


def _place(tokenizer: PreTrainedTokenizerBase) -> str | None:
    return getattr(tokenizer, "name_or_path", None) or None


def _plain_text(prompt: Prompt, kind: str) -> str:
    """A plain prompt, or a conversation written as text for a config template.

    One message is its content; several become ``Role: content`` paragraphs.
    """
    if isinstance(prompt, str):
        return prompt
    if kind == "plain":
        raise PolicyError(
            "the data is conversational, but the prompt format is plain",
            where="prompt.template",
            fix="set `prompt.template` to text that holds {prompt} (messages become `Role: content` paragraphs)\n"
            "or use a model whose tokenizer has a chat template",
        )
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in prompt)


def _name(tokenizer: PreTrainedTokenizerBase, i: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(i))
