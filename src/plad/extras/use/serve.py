"""The student behind a server that others have written, which takes this process's place."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from plad.errors import MissingExtraError, RunDirError
from plad.extras.export.handover import Handover


def serve_command(run: Path, server: str, arguments: Sequence[str] = ()) -> list[str]:
    """The command that serves the student of a run with an OpenAI-compatible API.

    Args:
        arguments: are passed on as they are.

    Raises:
        RunDirError: no student, or no GGUF file of it where the server needs one.
        MissingExtraError: the server isn't installed.
    """
    student = Handover(run).student()
    if server == "llama-server":
        file = run / "export/student.gguf"
        if not file.is_file():
            raise RunDirError("no GGUF file yet", where=str(file), fix=f"plad export {run} --to gguf writes it")
        return [
            _program(server, "llama.cpp has it: https://github.com/ggml-org/llama.cpp"),
            "-m",
            str(file),
            *arguments,
        ]
    if server == "vllm":
        return [_program(server, "pip install vllm"), "serve", str(student), *arguments]
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
        raise MissingExtraError(
            "transformers serve needs fastapi and uvicorn", where="--with", fix="pip install 'transformers[serving]'"
        )
    return [_program(server, "pip install transformers"), "serve", str(student), *arguments]


def _program(name: str, install: str) -> str:
    beside = Path(sys.executable).with_name(name)
    place = str(beside) if beside.is_file() else shutil.which(name)
    if place is None:
        raise MissingExtraError(f"{name} is not installed", where="--with", fix=install)
    return place


def replace_process(command: Sequence[str]) -> None:
    """Become the server: signals and its output are its own."""
    sys.stdout.flush()
    os.execv(command[0], list(command))
