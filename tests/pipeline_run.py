"""The pipeline in the test's own process: quicker than the command, and open to interruption at a chosen place."""

import shutil
from pathlib import Path

from plad.config.file import load_config
from plad.pipeline import run as pipeline
from plad.rundir.config_files import write_config
from plad.rundir.directory import open_run


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
