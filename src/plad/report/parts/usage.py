"""How a finished student is put to use: lines to paste for Python and for servers."""

import json
import shlex

_PYTHON = """\
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder})
model = {auto}.from_pretrained({folder})
messages = [{{"role": "user", "content": "a prompt, as a row of the data has it"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**inputs, max_new_tokens={max_new_tokens}, do_sample=False)
print(tokenizer.decode(answer[0, {start}:], skip_special_tokens=True).strip())"""
_ASK = (
    "curl http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' "
    """-d '{{"model": "student", "messages": [{{"role": "user", "content": "a prompt"}}], """
    """"max_tokens": {max_new_tokens}, "temperature": 0}}'"""
)


def python_lines(folder: str, max_new_tokens: int, *, seq2seq: bool = False) -> str:
    """A program that asks the student in a folder, or of a name on the hub, with transformers."""
    auto = "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM"
    start = "1" if seq2seq else 'inputs["input_ids"].shape[1]'
    return _PYTHON.format(auto=auto, folder=json.dumps(folder), max_new_tokens=max_new_tokens, start=start)


def folder_lines(folder: str, max_new_tokens: int, *, seq2seq: bool = False) -> dict[str, str]:
    """Name of a tool -> commands that serve the student in a folder and ask it; few servers take encoder-decoders."""
    if seq2seq:
        return {}
    ask = _ASK.format(port=8000, max_new_tokens=max_new_tokens)
    return {"vLLM": f"vllm serve {shlex.quote(folder)} --served-model-name student\n{ask}"}


def file_lines(file: str, modelfile: str, max_new_tokens: int) -> dict[str, str]:
    """The same of a GGUF file; each tool reads the prompt format from what lies beside the weights."""
    ask = _ASK.format(port=8080, max_new_tokens=max_new_tokens)
    return {
        "llama-server": f"llama-server -m {shlex.quote(file)} --jinja --port 8080\n{ask}",
        "Ollama": f'ollama create student -f {shlex.quote(modelfile)}\nollama run student "a prompt"',
    }


def told(lines: dict[str, str]) -> str:
    """The lines as a terminal shows them."""
    return "\n\n".join(f"# {tool}\n{commands}" for tool, commands in lines.items())
