"""A warm process that has imported everything and forks a child a command: real processes that cost their work alone.

python -m tests.faults.chaos.zygote     speaks JSON lines on its standard input and output

A hash seed and a locale belong to a process for good, so there is one zygote for each of them.
"""

import atexit
import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CANT = 75  # exit code of a child that may not mount
_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link"}  # audit events
_GROWS = {"open", "os.mkdir", "os.link"}  # what a full disk refuses


@dataclass(frozen=True)
class Order:
    """One command.

    Attributes:
        argv: what follows `plad`.
        cwd: where it runs; its standard output and error go to `out` there.
        at: the point at which `strike` happens, counted from 1: every write, rename, removal, fsync and statement
            to SQLite is one, and so is the moment after an fsync, a rename or a commit.
        strike: signal that the process gets there, or "full": from there on nothing more can be written.
        file_size: most bytes of a file (RLIMIT_FSIZE).
        reader: on a file system that can't be written, where this machine lets us mount one.
    """

    argv: tuple[str, ...]
    cwd: str
    out: str
    at: int = 0
    strike: str = ""
    file_size: int = 0
    reader: bool = False


class Points:
    """Counts what touches the disk, and strikes at the point that an order names."""

    def __init__(self, order: Order) -> None:
        self.at, self.strike = order.at, order.strike
        self.seen = 0
        self.full = False

    def watch(self) -> None:
        """Count from here on."""
        os.fsync = self._around(os.fsync)
        os.replace = self._after(os.replace)
        os.rename = self._after(os.rename)
        sqlite3.connect = self._connect(sqlite3.connect)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _WRITES or (event == "open" and _is_write(args)):
            self.point(str(args[0]) if event in _GROWS else "")

    def point(self, what: str) -> None:
        """One of the moments that count."""
        self.seen += 1
        if self.seen == self.at and self.strike == "full":
            self.full = True
        elif self.seen == self.at and self.strike:
            os.kill(os.getpid(), getattr(signal, self.strike))
        if self.full and what:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            self.point(f"fd {args[0]}")
            result = call(*args, **more)
            self.point("")
            return result

        return counted

    def _after(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            result = call(*args, **more)
            self.point("")
            return result

        return counted

    def _connect(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        points = self

        class Counted(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> Any:
                if sql.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN "):
                    if points.full:
                        raise sqlite3.OperationalError("database or disk is full")
                    points.point("")
                    result = super().execute(sql, *args)
                    points.point("")
                    return result
                return super().execute(sql, *args)

        return lambda *args, **more: connect(*args, **{"factory": Counted, **more})


def _is_write(args: tuple[Any, ...]) -> bool:
    path, mode, flags = args
    if not isinstance(path, str) or path.startswith(("/dev/", "/proc/")):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def serve() -> None:
    """Fork a child an order until standard input ends."""
    end_with_parent()
    orders, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    _import_everything()

    def say(**what: Any) -> None:
        replies.write(json.dumps(what) + "\n")
        replies.flush()

    say(ready=True, threads=len(os.listdir("/proc/self/task")))
    for line in orders:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            orders.close()
            replies.close()
            _obey(order)
        say(pid=child)
        _, status, used = os.wait4(child, 0)
        say(code=os.waitstatus_to_exitcode(status), cpu=used.ru_utime + used.ru_stime)


def _import_everything() -> None:
    import importlib
    import pkgutil

    import torch

    import plad

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(plad.__path__, "plad."):
        if not module.name.startswith(("plad.__main__", "plad.extras.demo", "plad.sampling.vllm")):
            importlib.import_module(module.name)
    for name in ("aiohttp", "peft", "trl", "scipy.stats", "matplotlib.pyplot", "rich.table", "rouge_score"):
        importlib.import_module(name)
    from plad.pipeline.stages import rounds
    from plad.remote import client
    from plad.report.parts import blocks

    blocks.render_svg = lambda name, *_: f'<svg id="{name}"></svg>'  # drawing is a third of a tiny run's time
    rounds.stop_reason = lambda _: None  # whatever tiny students come to, all rounds are made
    client._BACKOFF_S = 0.02  # the waits of a whole run against a hostile server would be all that one measures
    gc.collect()
    gc.freeze()  # else every collection of a child goes through all that is imported: most of a tiny run's time


def _obey(order: Order) -> None:
    """The child: never returns."""
    code = 70
    try:
        end_with_parent()
        os.chdir(order.cwd)
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{order.out}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), fd)
        if order.reader and not _make_readonly(order.cwd):
            os._exit(CANT)
        if order.file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_size, order.file_size))
        points = Points(order)
        points.watch()
        code = _command(order.argv)
        points.at = 0
        points.full = False
        Path(f"{order.out}.points").write_text(str(points.seen))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _make_readonly(folder: str) -> bool:
    """Mount a folder read-only, for this process alone; False where that is not allowed."""
    libc, place = ctypes.CDLL(None, use_errno=True), folder.encode()
    private, bind, readonly = 1 << 18 | 1 << 14, 1 << 12, 1 << 12 | 1 << 5 | 1  # MS_PRIVATE | MS_REC, MS_BIND, remount
    return (
        libc.unshare(1 << 17) == 0  # CLONE_NEWNS
        and libc.mount(None, b"/", None, private, None) == 0
        and libc.mount(place, place, None, bind, None) == 0
        and libc.mount(None, place, None, readonly, None) == 0
    )


def _command(argv: tuple[str, ...]) -> int:
    sys.argv = ["plad", *argv]
    from plad.cli import main

    try:
        main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    finally:
        atexit._run_exitfuncs()
    return 0


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (minus the signal that killed it), what it printed, the points it passed,
    and the seconds of computing it took."""

    order: Order
    code: int
    out: str
    err: str
    points: int | None
    cpu_s: float

    @property
    def printed(self) -> str:
        """All of it."""
        return self.out + self.err


class Zygote:
    """The other side: starts the process, gives orders one at a time.

    Args:
        environment: what differs from this process's environment.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        offline |= {"COLUMNS": "100", "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # no thread
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.chaos.zygote"],
            env={**os.environ, **offline, **environment, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._ready = False

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote has died")
        return json.loads(line)

    def start(self, order: Order) -> int:
        """Start a command; its process id."""
        if not self._ready:
            threads = self._hear()["threads"]
            assert threads == 1, f"a zygote with {threads} threads can't fork"
            self._ready = True
        assert self._process.stdin is not None
        self._order = order
        for name in ("out", "err"):
            Path(f"{order.out}.{name}").write_bytes(b"")
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return self._hear()["pid"]

    def wait(self) -> Done:
        """How the command that was started ended."""
        end = self._hear()
        out, err = (Path(f"{self._order.out}.{n}").read_bytes().decode("utf-8", "replace") for n in ("out", "err"))
        passed = Path(f"{self._order.out}.points")
        points = int(passed.read_text()) if passed.exists() else None
        passed.unlink(missing_ok=True)
        return Done(self._order, end["code"], out, err, points, end["cpu"])

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def end_with_parent() -> None:
    """Let this process be killed when its parent ends (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def kill_process(handle: int) -> None:
    """SIGKILL the process that a handle of `os.pidfd_open` is of, unless it has ended; never another one."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)


if __name__ == "__main__":
    serve()
