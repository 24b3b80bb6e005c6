"""What card, page and export say of using the student works as it is pasted."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment, plad
from tests.support.task import write_task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    plad("run", write_task(folder))
    return folder / "run"


def pasted(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_python_of_the_card_the_page_and_the_export_says_what_plad_says(run: Path, tmp_path: Path) -> None:
    prompt = "Answer this: 7"
    expected = plad("try", run, prompt, "--json").encode().decode("unicode_escape")
    answer = re.search(r'"text": "(.*?)",\n', expected, re.DOTALL)
    assert answer is not None
    card = re.search(r"(?s)```python\n(.*?)```", (run / "student/README.md").read_text())
    page = html.unescape((run / "report/index.html").read_text())
    shown = re.search(r"(?s)<pre>(from transformers import.*?)</pre>", page)
    out = plad("export", run, "--to", "merged", "--out", tmp_path / "merged")
    printed = re.search(r"(?s)# Python\n(.*?)\n\n# vLLM", out)
    assert card is not None
    assert shown is not None
    assert printed is not None
    places = ((card[1], run / "student"), (shown[1], run), (printed[1], tmp_path))
    for code, folder in places:
        asked = code.replace("a prompt, as a row of the data has it", prompt)
        assert asked != code
        assert pasted(asked, folder) == answer[1]


def test_gguf_comes_with_a_modelfile_and_the_commands(run: Path, tmp_path: Path) -> None:
    out = plad("export", run, "--to", "gguf", "--out", tmp_path / "my student.gguf")
    assert (tmp_path / "Modelfile").read_text().startswith("FROM ./my student.gguf\n")
    assert f"llama-server -m '{tmp_path}/my student.gguf' --jinja" in out
    assert f"ollama create student -f {tmp_path}/Modelfile" in out or f"-f '{tmp_path}/Modelfile'" in out
    assert "exists; nothing is overwritten" in plad("export", run, "--to", "gguf", "--out", tmp_path / "b.gguf", code=2)
