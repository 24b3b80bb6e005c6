"""The Modelfile beside a GGUF file: what Ollama makes of a prompt are the tokens of training.

Ollama is not run here: its template language is acted out for the few words of it that a Modelfile of ours uses.
"""

import re
from typing import Any

import pytest

from plad.config.models import PromptSection
from plad.extras.export.ollama import modelfile
from tests.support.tiny_models import BOS_CHATML, CHATML, tiny_policy, train_tokenizer

TEXT = "Why is it so?\n\nTL;DR:"
FORMATS: dict[str, dict[str, Any]] = {
    "plain": {"format": "plain"},
    "separator": {"format": "plain", "separator": " "},
    "template": {"template": 'say "{prompt}"\\ {{ x }} """\n'},
    "chat": {"format": "chat"},
    "system": {"format": "chat", "system": "Be brief."},
}


def acted_out(template: str, prompt: str, system: str = "") -> str:
    choice = re.fullmatch(r"(?s)\{\{ if \.System \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}(.*)", template)
    if choice:
        template = (choice[1] if system else choice[2]) + choice[3]
    template = template.replace('{{ "{{" }}', "\0").replace('{{ "\\"\\"\\"" }}', "\1")
    text = template.replace("{{ .System }}", system).replace("{{ .Prompt }}", prompt)
    assert "{{ ." not in text
    return text.replace("\0", "{{").replace("\1", '"""')


def template_in(text: str) -> str:
    match = re.search(r'(?s)^TEMPLATE """(.*?)"""$', text, re.MULTILINE)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_prompt_becomes_the_tokens_of_training(kind: str, bos: bool) -> None:
    """The file says whether a text begins with BOS, so that the template doesn't."""
    tokenizer = train_tokenizer(chat_template=BOS_CHATML if bos else CHATML, adds_bos=bos)
    prompt = tiny_policy(tokenizer=tokenizer, prompt=PromptSection(**FORMATS[kind]), eos=[2, 4]).prompt
    text = modelfile("student.gguf", prompt, 48)
    sent = acted_out(template_in(text), TEXT)
    assert tokenizer(sent, add_special_tokens=bos).input_ids == prompt.encode_prompt(TEXT)
    assert text.startswith("FROM ./student.gguf\n")
    assert text.count("PARAMETER stop ") == len(prompt.eos_ids)
    assert text.endswith("PARAMETER temperature 0\nPARAMETER num_predict 48\n")


def test_a_system_message_stands_where_the_chat_format_has_it() -> None:
    prompt = tiny_policy(tokenizer=train_tokenizer(chat_template=CHATML), prompt=PromptSection(format="chat")).prompt
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT})
    sent = acted_out(template_in(modelfile("s.gguf", prompt, 8)), TEXT, "Be brief.")
    assert prompt.tokenizer(sent, add_special_tokens=False).input_ids == prompt.encode_prompt(messages)
