"""Chat templates that say a plain or a config's prompt format in words that every tool understands.

They keep to what the small Jinja interpreters of other tools know, and never refuse the conversation that llama-server
renders when it starts (system, user, assistant, user): it would not load the model.
"""

import json

from plad.config.models import PromptSection

_MARK = "plad prompt format "
_SYSTEM_ENDS = "{%- endif %}\n"  # renderers drop the line break: what follows begins its line as it did
_ONLY = "this model was trained on plain prompts: a user's message, then its answer; it has no place for another role"
_ENCODER = "this model reads the prompt in its encoder; an answer is the decoder's alone"


def literal(text: str) -> str:
    """A text as a string of Jinja, with the few escapes that every interpreter knows."""
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escaped)
    return f'"{text}"'


def around_prompt(template: str) -> str:
    """A chat template that writes the config's template around the first message.

    The config's own control tokens count as such; those inside the message don't.
    """
    before, _, after = template.partition("{prompt}")
    return f"{{{{ {literal(before)} }}}}{{{{ messages[0]['content'] }}}}{{{{ {literal(after)} }}}}"


def plain_chat(section: PromptSection, *, start: str, join: str, end: str) -> str:
    """A template of finished exchanges: a user's message is the prompt, the assistant's is its answer.

    Args:
        start: what stands before the first prompt.
        join: what stands between a prompt and its answer.
        end: what closes an answer.
    """
    return (
        f"{_mark(section)}{{{{- {literal(start)} }}}}"
        "{%- for message in messages %}"
        "{%- if message['role'] == 'user' and loop.index0 % 2 == 0 %}{{- '' + message['content'] }}"
        "{%- elif message['role'] == 'assistant' and loop.index0 % 2 == 1 %}"
        f"{{{{- {literal(join)} + message['content'] + {literal(end)} }}}}"
        f"{{%- else %}}{{{{- raise_exception({literal(_ONLY)}) }}}}{{%- endif %}}"
        "{%- endfor %}"
    )


def template_chat(section: PromptSection, *, start: str, join: str, end: str) -> str:
    """The config's template around a message, or around several as paragraphs; an answer at the end closes it."""
    before, _, after = (section.template or "{prompt}").partition("{prompt}")
    return (
        f"{_mark(section)}{{%- set turns = messages %}}"
        "{%- if messages|length > 1 and messages[-1]['role'] == 'assistant' %}"
        "{%- set turns = messages[:-1] %}{%- endif %}"
        f"{{{{- {literal(start + before)} }}}}"
        "{%- if turns|length == 1 %}{{- '' + turns[0]['content'] }}{%- else %}"
        "{%- for message in turns %}{{- message['role']|capitalize + ': ' + message['content'] }}"
        '{%- if not loop.last %}{{- "\\n\\n" }}{%- endif %}{%- endfor %}{%- endif %}'
        f"{{{{- {literal(after)} }}}}"
        "{%- if turns|length < messages|length %}"
        f"{{{{- {literal(join)} + messages[-1]['content'] + {literal(end)} }}}}{{%- endif %}}"
    )


def closed_chat(template: str, close: str) -> str:
    """A template of an encoder's input: closed as its tokenizer closes a text, and without answers."""
    refuses = f"{{%- if messages[-1]['role'] == 'assistant' %}}{{{{- raise_exception({literal(_ENCODER)}) }}}}"
    head, mark, body = template.rpartition("-#}")
    return f"{head}{mark}{refuses}{{%- endif %}}{body}{{{{- {literal(close)} }}}}"


def system_chat(section: PromptSection, template: str) -> str:
    """A model's own chat template that begins with the section's system message where none is given."""
    message = f"[{{'role': 'system', 'content': {literal(section.system or '')}}}]"
    return (
        f"{_mark(section)}{{%- if messages[0]['role'] != 'system' %}}"
        f"{{%- set messages = {message} + messages %}}{_SYSTEM_ENDS}{template}"
    )


def _mark(section: PromptSection) -> str:
    said = json.dumps(section.model_dump(exclude_defaults=True)).replace("#", "\\u0023")
    return f"{{#- {_MARK}{said} -#}}"


def read_section(template: object) -> tuple[PromptSection, str] | None:
    """The prompt format that a chat template written here says, and the model's own below it; None of any other."""
    if not isinstance(template, str) or not template.startswith(f"{{#- {_MARK}"):
        return None
    said, _, rest = template.removeprefix(f"{{#- {_MARK}").partition(" -#}")
    section = PromptSection.model_validate_json(said)
    return section, rest.partition(_SYSTEM_ENDS)[2] if section.format == "chat" else template
