"""The student as one Hugging Face folder."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from plad.extras.export.handover import Handover
from plad.report.parts.run_facts import is_seq2seq
from plad.report.parts.usage import folder_lines, python_lines, told
from plad.rundir.atomic import COMPLETE, atomic_dir, verify_dir, write_json

if TYPE_CHECKING:
    from plad.policy.prompt import PromptFormat


def export_merged(handover: Handover) -> str:
    """Copy the student, whole and verified."""
    out = handover.place("merged", folder=True)
    with atomic_dir(out) as staging:
        fill(staging, handover)
    verify_dir(out)
    tokens, seq2seq = handover.max_new_tokens(), is_seq2seq(handover.run)
    lines = {"Python": python_lines(str(out), tokens, seq2seq=seq2seq)}
    return f"wrote {out}\n\n{told(lines | folder_lines(str(out), tokens, seq2seq=seq2seq))}"


def fill(folder: Path, handover: Handover, *, link: bool = False) -> "PromptFormat":
    """Copy the student, in the type that is asked for, with the chat template of its training; returns its format.

    Args:
        link: weights that stay as they are need not be copied: the folder is only read, and goes.
    """
    from plad.policy.folder import has_format, write_format

    def copy(source: str, target: str) -> None:
        (os.link if link and source.endswith(".safetensors") else shutil.copy2)(source, target)

    student, prompt = handover.student(), handover.prompt_format()
    ignored = shutil.ignore_patterns(COMPLETE)
    shutil.copytree(student, folder, dirs_exist_ok=True, ignore=ignored, copy_function=copy)
    if not has_format(folder, prompt):
        write_format(folder, prompt)
    if handover.dtype is not None:
        _cast(folder, handover.dtype)
    return prompt


def _cast(folder: Path, dtype: str) -> None:
    """Write a folder's weights again in another type, one file after the other."""
    import torch
    from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # untyped dict

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        tensors = {n: t.to(getattr(torch, dtype)) if t.is_floating_point() else t for n, t in load_file(file).items()}
        file.unlink()  # it may be a link to the run's
        save_file(tensors, file, metadata={"format": "pt"})
        total += sum(t.nbytes for t in tensors.values())
    for name, key, value in (
        ("config.json", "dtype", dtype),
        ("model.safetensors.index.json", "metadata", {"total_size": total}),
    ):
        if (folder / name).is_file():
            known = json.loads((folder / name).read_text(encoding="utf-8"))
            write_json(folder / name, {**known, key: value if isinstance(value, str) else {**known[key], **value}})
