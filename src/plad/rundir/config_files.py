"""The two configs in a run directory: the hand-written one and the resolved one."""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path

from plad.config.file import read_text
from plad.config.root import Config
from plad.errors import RunDirError
from plad.rundir.atomic import write_text
from plad.rundir.directory import RunDir
from plad.text import redact

RESOLVED = "config.resolved.json"


@contextlib.contextmanager
def write_config(run: RunDir, path: Path, config: Config) -> Generator[None]:
    """Put the hand-written config and the resolved one into the run directory.

    A block that ends with a RunDirError (the run was made with other settings) puts the former files back.
    """
    texts = {
        "config.yaml": read_text(path),
        RESOLVED: json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n",
    }
    former = {name: (run / name).read_text("utf-8", "replace") for name in texts if (run / name).is_file()}
    for name, text in texts.items():
        write_text(run / name, redact(text))
    try:
        yield
    except RunDirError:
        for name, text in former.items():
            write_text(run / name, text)
        raise


def read_config(run: Path) -> Config:
    """The settings that a run was made with.

    Raises:
        RunDirError: they are missing or damaged.
    """
    file = run / RESOLVED
    try:
        return Config.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as e:
        reason = str(e).splitlines()[0]
        raise RunDirError(
            f"no settings of a run ({reason})", where=str(file), fix="plad run CONFIG writes them"
        ) from None
