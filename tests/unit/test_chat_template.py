"""A saved policy's chat template: messages, and texts, become the very tokens that it was trained on."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from transformers import AutoTokenizer, GenerationConfig, pipeline

from plad.config.models import LoraSection, ModelSection, PromptSection
from plad.extras.export.gguf import write_gguf
from plad.policy.fingerprint import folder_fingerprint
from plad.policy.folder import has_format, load_tokenizer, write_format
from plad.policy.load import Policy, attach, load_policy, make_policy, save_policy
from plad.policy.prompt import make_prompt_format
from plad.rundir.atomic import atomic_dir
from plad.rundir.directory import open_run
from tests.support.command import call
from tests.support.tiny_models import (
    BOS_CHATML,
    CHATML,
    pieces_tokenizer,
    tiny_folder,
    tiny_model,
    tiny_policy,
    train_tokenizer,
)

TEXT, ANSWER = "Why is it so?\n\nTL;DR:", "Because it is."
USER, SAID = {"role": "user", "content": TEXT}, {"role": "assistant", "content": ANSWER}
LLAMA_SERVER = [  # what it renders when it loads a model, which fails where the template refuses
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there"},
    {"role": "user", "content": "How are you?"},
]
TEMPLATE = 'say "{prompt}"\\ {{ x }} {% if %} #} é\n'
FORMATS: dict[str, dict[str, Any]] = {
    "plain": {"format": "plain"},
    "separator": {"format": "plain", "separator": " "},
    "template": {"template": TEMPLATE, "separator": " "},
    "control": {"template": "<|im_start|>{prompt}<|im_end|>"},
    "chat": {"format": "chat"},
    "system": {"format": "chat", "system": 'Be "brief".\n'},
}
TOKENIZERS: dict[str, dict[str, bool]] = {
    "bare": {},
    "bos": {"adds_bos": True},
    "closed": {"adds_bos": True, "adds_eos": True},
}


def policy(kind: str, tokenizer: str = "bare", **options: Any) -> Policy:
    made = train_tokenizer(chat_template=BOS_CHATML if tokenizer != "bare" else CHATML, **TOKENIZERS[tokenizer])
    return tiny_policy(tokenizer=made, prompt=PromptSection(**FORMATS[kind]), eos=[2, 4], **options)


def rendered(tokenizer: Any, *messages: dict[str, str], **how: Any) -> list[int]:
    return tokenizer.apply_chat_template(list(messages), return_dict=False, **how)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("kind", FORMATS)
def test_messages_and_texts_become_the_tokens_of_training(tmp_path: Path, kind: str, tokenizer: str) -> None:
    trained = policy(kind, tokenizer)
    save_policy(trained, tmp_path)
    saved, prompt = AutoTokenizer.from_pretrained(tmp_path), trained.prompt.encode_prompt(TEXT)
    assert rendered(saved, USER, add_generation_prompt=True) == prompt
    whole = prompt + trained.prompt.encode_completion(ANSWER)
    assert rendered(saved, USER, SAID)[: len(whole)] == whole
    assert saved(trained.prompt.text(TEXT)).input_ids == prompt
    ends = GenerationConfig.from_pretrained(tmp_path).eos_token_id
    assert ends == list(trained.eos_ids)


@pytest.mark.parametrize("kind", FORMATS)
def test_plad_reads_its_own_template_as_the_format_of_training(tmp_path: Path, kind: str) -> None:
    """Under the run's section, and in a new run that leaves the format open; written again, it stays the same."""
    trained = policy(kind, "bos")
    save_policy(trained, tmp_path)
    for section in (PromptSection(**FORMATS[kind]), PromptSection()):
        found = load_policy(ModelSection(model=str(tmp_path), prompt=section)).prompt
        assert found.describe() == trained.prompt.describe()
        assert found.encode_prompt(TEXT) == trained.prompt.encode_prompt(TEXT)
        assert found.encode_completion(ANSWER) == trained.prompt.encode_completion(ANSWER)
        assert has_format(tmp_path, found)
    before = (tmp_path / "chat_template.jinja").read_bytes()
    write_format(tmp_path, load_policy(ModelSection(model=str(tmp_path))).prompt)
    assert (tmp_path / "chat_template.jinja").read_bytes() == before


def test_plain_by_default_stays_plain_though_a_template_is_written(tmp_path: Path) -> None:
    trained = make_policy(tiny_model(), train_tokenizer(), PromptSection(separator=" "))
    save_policy(trained, tmp_path)
    found, notes = make_prompt_format(load_tokenizer(tmp_path), PromptSection(separator=" "))
    assert found.describe() == trained.prompt.describe()
    assert notes[0] == "prompt format plain (auto: the chat template says so)"


def test_a_pipeline_answers_messages_as_it_answers_texts(tmp_path: Path) -> None:
    trained = policy("separator", "bos")
    save_policy(trained, tmp_path)
    generate = pipeline("text-generation", model=str(tmp_path), max_new_tokens=5, do_sample=False)
    (text,), (messages,) = generate(TEXT, return_full_text=False), generate([USER], return_full_text=False)
    assert text["generated_text"] == messages["generated_text"] != ""


def test_an_adapters_folder_has_the_template_too(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", tokenizer=train_tokenizer(chat_template=CHATML))
    section = ModelSection(model=str(base), prompt=PromptSection(**FORMATS["separator"]))
    save_policy(attach(load_policy(section), LoraSection()), tmp_path / "teacher")
    saved = AutoTokenizer.from_pretrained(tmp_path / "teacher")
    trained = load_policy(section, folder=tmp_path / "teacher").prompt
    assert rendered(saved, USER, add_generation_prompt=True) == trained.encode_prompt(TEXT)


@pytest.mark.parametrize("kind", ["plain", "template"])
def test_an_encoders_input_is_closed(tmp_path: Path, kind: str) -> None:
    tokenizer = train_tokenizer(chat_template=CHATML, adds_eos=True)
    trained = tiny_policy("t5", tokenizer=tokenizer, prompt=PromptSection(**FORMATS[kind]))
    save_policy(trained, tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert rendered(saved, USER) == trained.prompt.encode_prompt(TEXT)
    assert saved(trained.prompt.text(TEXT)).input_ids == trained.prompt.encode_prompt(TEXT)
    with pytest.raises(Exception, match="reads the prompt in its encoder"):
        rendered(saved, USER, SAID)


def test_what_a_plain_format_has_no_words_for_is_refused(tmp_path: Path) -> None:
    save_policy(policy("separator"), tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for messages in ([LLAMA_SERVER[0], USER], [USER, USER], [SAID], [USER, {"role": "tool", "content": "x"}]):
        with pytest.raises(Exception, match="trained on plain prompts"):
            rendered(saved, *messages)
    once, twice = rendered(saved, USER, SAID), rendered(saved, USER, SAID, USER)
    assert twice == once + rendered(saved, USER)


def test_several_messages_fill_a_template_as_in_training(tmp_path: Path) -> None:
    trained = policy("template", "bos")
    save_policy(trained, tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    ids = rendered(saved, *LLAMA_SERVER, add_generation_prompt=True)
    assert ids == trained.prompt.encode_prompt(tuple(LLAMA_SERVER))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FORMATS)
def test_llama_server_can_load_it(tmp_path: Path, kind: str) -> None:
    """It joins a system message that a template doesn't look at with the next one, then renders its example."""
    save_policy(policy(kind, "bos"), tmp_path)
    system, user, *others = LLAMA_SERVER
    joined = [{"role": "user", "content": f"{system['content']}\n{user['content']}"}, *others]
    messages = joined if kind in ("plain", "separator") else LLAMA_SERVER
    assert rendered(AutoTokenizer.from_pretrained(tmp_path), *messages, add_generation_prompt=True)


@pytest.mark.parametrize("tokenizer", ["bare", "bos"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_gguf_file_gives_the_same_tokens(tmp_path: Path, kind: str, tokenizer: str) -> None:
    """By transformers' reading, and by llama.cpp's: BOS that a template wrote goes where the file adds one."""
    trained = policy(kind, tokenizer)
    save_policy(trained, tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "x.gguf", name="x")
    prompt = trained.prompt.encode_prompt(TEXT)
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    assert rendered(read, USER, add_generation_prompt=True) == prompt
    assert read.eos_token_id == trained.prompt.end_id
    fields = {name: field.contents() for name, field in gguf.GGUFReader(tmp_path / "x.gguf").fields.items()}
    assert fields["tokenizer.ggml.eos_token_id"] == trained.prompt.end_id
    assert fields["tokenizer.ggml.eot_token_id"] in trained.eos_ids
    adds = fields["tokenizer.ggml.add_bos_token"]
    saved: Any = load_tokenizer(tmp_path / "model")
    how = {"chat_template": fields["tokenizer.chat_template"], "tokenize": False, "add_generation_prompt": True}
    text = saved.apply_chat_template([USER], **how)
    bare = text.removeprefix("<s>") if adds else text
    assert [1] * adds + saved.encode(bare, add_special_tokens=False) == prompt
    assert adds == (tokenizer == "bos" and prompt[0] == 1)


def test_a_gguf_file_adds_no_bos_where_chats_were_learnt_without(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(chat_template=CHATML, adds_bos=True)
    save_policy(tiny_policy(tokenizer=tokenizer), tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "x.gguf", name="x")
    assert gguf.GGUFReader(tmp_path / "x.gguf").fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_a_gguf_template_keeps_the_end_token_that_the_model_wrote(tmp_path: Path) -> None:
    """The file has one end token, that of an answer; a template that names another keeps it by name."""
    own = CHATML.replace("<|im_end|>", "<|im_end|>{{ eos_token }}")
    trained = tiny_policy(tokenizer=train_tokenizer(chat_template=own), eos=[2, 4])
    assert trained.prompt.end_id == 4
    save_policy(trained, tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "x.gguf", name="x")
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    assert read.eos_token_id == 4
    assert rendered(read, USER, add_generation_prompt=True) == trained.prompt.encode_prompt(TEXT)


def test_an_end_token_that_only_the_generation_config_named_becomes_the_tokenizers(tmp_path: Path) -> None:
    save_policy(tiny_policy(tokenizer=train_tokenizer(eos_token=None), eos=[4]), tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|im_end|>"
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] in (4, [4])


def test_a_blank_that_the_tokenizer_puts_before_a_text_is_written_where_none_is_put(tmp_path: Path) -> None:
    """Behind BOS transformers puts none, llama.cpp does."""
    trained = tiny_policy(tokenizer=pieces_tokenizer(), prompt=PromptSection(format="plain"))
    save_policy(trained, tmp_path / "model")
    saved, prompt = AutoTokenizer.from_pretrained(tmp_path / "model"), trained.prompt.encode_prompt("the model")
    assert rendered(saved, {"role": "user", "content": "the model"}) == saved("the model").input_ids == prompt
    write_gguf(tmp_path / "model", tmp_path / "x.gguf", name="x")
    template = gguf.GGUFReader(tmp_path / "x.gguf").fields["tokenizer.chat_template"].contents()
    assert '{{- "<s> " }}' in saved.chat_template
    assert '{{- "<s>" }}' in template


@pytest.mark.parametrize("to", ["merged", "gguf"])
def test_an_older_versions_student_gets_its_template_when_it_is_handed_over(tmp_path: Path, to: str) -> None:
    """The run's own folder stays as it is, and with it its fingerprint."""
    tokenizer = train_tokenizer(chat_template=CHATML, adds_bos=True, eos_token="<|im_end|>")
    with open_run(tmp_path / "run") as run, atomic_dir(run / "student") as folder:
        tiny_folder(folder, tokenizer=tokenizer, eos=2)
        section = {"format": "plain", "separator": " "}
        (run / "config.resolved.json").write_text(json.dumps({"student": {"prompt": section}}))
    before = folder_fingerprint(tmp_path / "run/student")
    assert call("export", tmp_path / "run", "--to", to)[0] == 0
    trained = make_prompt_format(tokenizer, PromptSection(**FORMATS["separator"]), GenerationConfig(eos_token_id=2))[0]
    out = tmp_path / "run/export"
    found = AutoTokenizer.from_pretrained(out, gguf_file="student.gguf") if to == "gguf" else None
    found = found or AutoTokenizer.from_pretrained(out / "merged")
    assert rendered(found, USER, add_generation_prompt=True) == trained.encode_prompt(TEXT)
    if to == "merged":
        assert GenerationConfig.from_pretrained(out / "merged").eos_token_id == [4, 2]
    assert folder_fingerprint(tmp_path / "run/student") == before
