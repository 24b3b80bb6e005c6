"""plad started as a shell would, or in the test's own process: quicker, and open to interruption at a chosen place."""

import ctypes
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from typer.testing import CliRunner

from plad.cli import app
from plad.config.file import load_config
from plad.pipeline import run as pipeline
from plad.rundir.config_files import write_config
from plad.rundir.directory import open_run

_CAPABILITIES_V3 = 0x20080522


class KilledError(Exception):
    """Stands for a kill: nothing that comes after the place where it is raised happens."""


def run_here(config: Path, *overrides: str, to: str | None = None) -> Path:
    """Run the stages of a config; returns the run directory."""
    cfg = load_config(config, list(overrides))
    with open_run(cfg.run.dir) as opened, write_config(opened, config, cfg):
        pipeline.run(cfg, opened, base=config.parent, to=to)
    return cfg.run.dir


def copy_run(run: Path, folder: Path) -> str:
    """A copy of a run directory, as the setting that names it."""
    shutil.copytree(run, folder / "run", symlinks=True)
    return f"run.dir={folder / 'run'}"


def call(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `plad args`."""
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def plad_command(*arguments: str | Path) -> list[str]:
    """The real command, as a shell would start it."""
    return [sys.executable, "-m", "plad", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Offline and single-threaded."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


def plad(*arguments: str | Path, cwd: Path | None = None, code: int = 0) -> str:
    """Run the command, check its exit code, return what it printed (stdout, then stderr)."""
    done = subprocess.run(
        plad_command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed
    return printed


def lines_fit(text: str) -> bool:
    """Whether no line passes 80 columns."""
    return max(map(len, text.splitlines())) <= 80


def write_package(folder: Path, module: str, text: str, entry: tuple[str, str, str]) -> Path:
    """What pip leaves of a package of one module in a folder of `sys.path`; returns the folder.

    Args:
        entry: group, name and class of its entry point.
    """
    group, name, cls = entry
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(text)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{cls}\n")
    return folder


@contextmanager
def open_folder() -> Generator[Path]:
    """A folder that every user can reach: pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


def protect(folder: Path) -> None:
    """Take the right to write away from everybody."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def call_without_rights(*args: object) -> tuple[int, str, str]:
    """`call` in a process that rights count for: the modes of files bind it, whoever it is."""
    return call_after(_drop_rights, *args)


def call_after(prepare: Callable[[], None], *args: object) -> tuple[int, str, str]:
    """`call` in a process of its own that is prepared first."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_call, args=(theirs, prepare, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _call(pipe: Connection, prepare: Callable[[], None], args: tuple[object, ...]) -> None:
    prepare()
    pipe.send(call(*args))


def _drop_rights() -> None:
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
