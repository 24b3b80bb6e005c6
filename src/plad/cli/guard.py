"""Around every command: errors in one shape, signals, logs without secrets."""

import contextlib
import logging
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

import typer

from plad.errors import Interrupted, PladError, ProblemsError
from plad.rundir.writing import write_error
from plad.text import clean, redact

_ONCE = ("--clean",)  # options that a resumed command doesn't repeat


class _Formatter(logging.Formatter):
    """Redacts whatever is logged, tracebacks included, and keeps control characters out."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(redact(super().format(record)))


class _RunLog(logging.FileHandler):
    """A log that a full disk, or somebody who deletes its folder, costs lines and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say nothing: whatever else is written there says it."""


class Guarded:
    """What a guarded command may turn on."""

    def __init__(self) -> None:
        self.log_file: Path | None = None

    @contextlib.contextmanager
    def log_to(self, file: Path) -> Generator[None]:
        """Log to a run's run.log, and plad's own messages to the terminal too."""
        to_file = _RunLog(file, encoding="utf-8", errors="backslashreplace")
        to_file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        to_terminal = logging.StreamHandler(sys.stderr)
        to_terminal.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        root, own = logging.getLogger(), logging.getLogger("plad")
        levels = root.level, own.level
        root.addHandler(to_file)
        own.addHandler(to_terminal)
        own.setLevel(logging.INFO)
        self.log_file = file
        try:
            with _warnings_to_log():
                yield
        except BaseException as e:
            to_file.handle(_record(e))
            raise
        finally:
            root.removeHandler(to_file)
            own.removeHandler(to_terminal)
            root.setLevel(levels[0])
            own.setLevel(levels[1])
            to_file.close()


def _record(error: BaseException) -> logging.LogRecord:
    expected = isinstance(error, PladError | KeyboardInterrupt)
    text = str(error) or type(error).__name__
    info = None if expected else (type(error), error, error.__traceback__)
    return logging.LogRecord("plad", logging.ERROR, __file__, 0, "stopped: %s", (text,), info)


@contextlib.contextmanager
def _warnings_to_log() -> Generator[None]:
    """Python warnings go to run.log, not between the progress lines."""
    shown = warnings.showwarning
    log = logging.getLogger("py.warnings")

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        log.warning("%s:%s: %s: %s", filename, lineno, category.__name__, message)

    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = shown


@contextlib.contextmanager
def guard(resume: str | None = None) -> Generator[Guarded]:
    """Turn errors into a message and an exit code.

    Args:
        resume: the command that continues, shown when the user stops this one.
    """
    guarded = Guarded()
    try:
        with sigterm_as_interrupt():
            yield guarded
    except PladError as e:
        print_error(e)
        raise typer.Exit(e.exit_code) from None
    except KeyboardInterrupt:
        fix = f"continue with: {resume}" if resume else None
        print_error(Interrupted("stopped; everything finished so far is kept" if resume else "stopped", fix=fix))
        raise typer.Exit(Interrupted.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) has gone
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as e:
        named = getattr(e, "filename", None)
        folder = guarded.log_file.parent if guarded.log_file else Path.cwd()
        known = write_error(e, Path(named) if isinstance(named, str) else folder)
        if known is None:
            _unexpected(e, guarded.log_file)
        print_error(known)
        raise typer.Exit(known.exit_code) from None


def _unexpected(error: Exception, log_file: Path | None) -> NoReturn:
    if log_file is None:
        print(clean(redact("".join(traceback.format_exception(error)))), file=sys.stderr)
    first = (str(error).strip() or "(no message)").splitlines()[0]
    where = f"the traceback stands in {log_file}" if log_file else "the traceback stands above"
    print_error(
        PladError(f"unexpected {type(error).__name__}: {first}", fix=f"{where}\n`plad doctor` adds what a report needs")
    )
    raise typer.Exit(1) from None


@contextlib.contextmanager
def sigterm_as_interrupt() -> Generator[None]:
    """SIGTERM stops a run the way Ctrl-C does."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def resume_command(argv: Sequence[str] | None = None) -> str:
    """The command that continues this one: itself, without what must not be done twice."""
    kept: list[str] = []
    rest = iter(sys.argv[1:] if argv is None else argv)
    for word in rest:
        if word in _ONCE:
            next(rest, None)
        elif not word.startswith(tuple(f"{name}=" for name in _ONCE)):
            kept.append(word)
    return shlex.join(["plad", *kept])


def print_error(error: PladError, stream: TextIO | None = None) -> None:
    """Print `error: where: what` and the ways out, without secrets; one block a problem."""
    for one in error.problems if isinstance(error, ProblemsError) else (error,):
        print(clean(redact(f"error: {one}")), file=stream or sys.stderr)
