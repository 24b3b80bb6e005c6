"""Hand over what a run made: pairs for TRL; the student as a folder, as one GGUF file, or on the hub."""

import json
import logging
import shutil
from pathlib import Path
from typing import Literal

from plad.errors import RunDirError
from plad.rundir.directory import COMPLETE, atomic_dir, atomic_file, is_complete, read_manifest, verify_dir

Format = Literal["trl", "llamafactory", "axolotl", "merged", "gguf"]
DEFAULTS: dict[Format, str] = {
    "trl": "pairs.jsonl",
    "llamafactory": "llamafactory.json",
    "axolotl": "axolotl.jsonl",
    "merged": "merged",
    "gguf": "student.gguf",
}
_PROBES = 50  # texts of the run that a written tokenizer is tried on

log = logging.getLogger("plad")


def export(run: Path, to: Format, out: Path | None = None) -> Path:
    """Write the pairs for TRL, LLaMA-Factory or axolotl, or the student as a Hugging Face folder or a GGUF file.

    Args:
        out: a folder for merged, else a file. Default: RUN/export/pairs.jsonl, merged or student.gguf.

    Returns:
        What was written.

    Raises:
        RunDirError: the run has none yet, its files are damaged, or `out` exists.
        PolicyError: the student is of a kind that plad can't write as GGUF.
    """
    read_manifest(run)
    out = out or run / "export" / DEFAULTS[to]
    if out.is_file() or out.is_symlink() or (out.is_dir() and (to != "merged" or any(out.iterdir()))):
        raise RunDirError("exists; nothing is overwritten", where=str(out), fix="give another --out")
    match to:
        case "merged":
            return _export_student(run, out)
        case "gguf":
            return _export_gguf(run, out)
        case _:
            return _export_pairs(run, out, to)


def _export_pairs(run: Path, out: Path, to: Literal["trl", "llamafactory", "axolotl"]) -> Path:
    from plad.data.formats import pair_to_trl, read_pairs_parquet
    from plad.extras.export.pairs import pair_to_axolotl, pair_to_llamafactory

    if not (run / "pairs.parquet").is_file():
        raise RunDirError("no pairs yet", where=str(run), fix="plad pair CONFIG makes them")
    shape = {"trl": pair_to_trl, "llamafactory": pair_to_llamafactory, "axolotl": pair_to_axolotl}[to]
    rows = (json.dumps(shape(pair), ensure_ascii=False) for pair in read_pairs_parquet(run / "pairs.parquet"))
    with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        f.write("[\n" + ",\n".join(rows) + "\n]\n" if to == "llamafactory" else "".join(f"{r}\n" for r in rows))
    return out


def student_folder(run: Path) -> Path:
    """The distilled student of a run, whole.

    Raises:
        RunDirError: there is none yet, or it is damaged.
    """
    student = run / "student"
    if not is_complete(student):
        raise RunDirError("no student yet", where=str(run), fix="plad distill CONFIG makes it")
    verify_dir(student)
    return student


def _export_student(run: Path, out: Path) -> Path:
    student = student_folder(run)
    with atomic_dir(out) as staging:
        shutil.copytree(student, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(COMPLETE))
    verify_dir(out)
    return out


def _export_gguf(run: Path, out: Path) -> Path:
    from plad.extras.export.gguf import write_gguf

    student = student_folder(run)
    write_gguf(student, out, name=run.resolve().name)
    _try_tokenizer(student, out, run)
    return out


def _try_tokenizer(student: Path, out: Path, run: Path) -> None:
    """Warn where transformers would cut the run's own texts into other tokens when it reads the file."""
    from transformers import AutoTokenizer

    from plad.data.formats import read_examples_jsonl

    file = run / "data/test.jsonl"
    examples = read_examples_jsonl(file)[:_PROBES] if file.is_file() else []
    texts = [t for e in examples for t in (e.prompt if isinstance(e.prompt, str) else "", *e.references) if t]
    ours = AutoTokenizer.from_pretrained(student, local_files_only=True)
    theirs = AutoTokenizer.from_pretrained(out.parent, gguf_file=out.name, local_files_only=True)
    different = sum(ours(t).input_ids != theirs(t).input_ids for t in texts)
    if different:
        log.warning(
            "transformers, reading %s, cuts %d of %d texts into other tokens than the student learnt; llama.cpp knows "
            "the file's own way to split text",
            *(out, different, len(texts)),
        )
