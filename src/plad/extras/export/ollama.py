"""An Ollama Modelfile beside a GGUF file: the prompt of training in the template language of Ollama."""

from typing import TYPE_CHECKING

from jinja2 import TemplateError

if TYPE_CHECKING:
    from plad.policy.prompt import PromptFormat

_SYSTEM, _PROMPT = "\ue124", "\ue125"  # private-use characters that no chat template writes


def modelfile(file: str, prompt: "PromptFormat", max_new_tokens: int) -> str:
    """What `ollama create` reads.

    Args:
        file: name of the GGUF file beside it.
        prompt: the student's format.
        max_new_tokens: most tokens of an answer, as the evaluation had it.
    """
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{ollama_template(prompt)}"""',
        *(f'PARAMETER stop "{_quoted(prompt.text_of([i]))}"' for i in prompt.eos_ids),
        "PARAMETER temperature 0",
        f"PARAMETER num_predict {max_new_tokens}",
    ]
    return "\n".join(lines) + "\n"


def ollama_template(prompt: "PromptFormat") -> str:
    """The text around a prompt, with a system message where the format takes one; BOS is left to the GGUF file."""
    before, after = _around(prompt, [{"role": "user", "content": _PROMPT}])
    template = f"{_text(before)}{{{{ .Prompt }}}}{_text(after)}"
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _PROMPT}]
    try:
        given, ends = _around(prompt, messages)
    except TemplateError:
        return template
    head, system, between = given.partition(_SYSTEM)
    if prompt.kind != "chat" or not system or ends != after:
        return template
    return (
        f"{{{{ if .System }}}}{_text(head)}{{{{ .System }}}}{_text(between)}"
        f"{{{{ else }}}}{_text(before)}{{{{ end }}}}{{{{ .Prompt }}}}{_text(after)}"
    )


def _around(prompt: "PromptFormat", messages: list[dict[str, str]]) -> tuple[str, str]:
    text = prompt.tokenizer.apply_chat_template(  # pyright: ignore[reportUnknownMemberType]  # typed in part
        messages, chat_template=prompt.chat_template(), tokenize=False, add_generation_prompt=True
    )
    assert isinstance(text, str)
    before, _, after = text.partition(_PROMPT)
    return before.removeprefix(prompt.text_of(prompt.start) if prompt.start else ""), after


def _text(text: str) -> str:
    """Text as it stands in a template between triple quotes."""
    return text.replace("{{", '{{ "{{" }}').replace('"""', '{{ "\\"\\"\\"" }}')


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
