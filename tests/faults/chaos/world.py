"""One sequence: a run in some state, the commands given to it, and what must hold after each of them."""

import contextlib
import os
import re
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plad.pipeline.stage import NAMES
from tests.faults.chaos.compare import LEDGER, Answers, answers, contents, differing, marks
from tests.faults.chaos.task import CONCURRENCY, Teacher, write_base, write_config
from tests.faults.chaos.zygote import CANT, Done, Order, Zygote, kill_process

PATIENCE_S = 400.0  # a hang, even on a machine with much else to do
KNOWN = {0, 2, 3, 4, 130}
STARTS = ("nothing", *NAMES)
ENVIRONMENTS = (
    {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
    {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"},
)
Step = tuple[str, dict[str, Any]]


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Lab:
    """What all sequences of a process share: zygotes, the teacher, a run of reference and its state after each stage.

    Attributes:
        points: that a run passes in each stage.
        reference: what an undisturbed run comes to.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos_"))
        self.folder.chmod(0o755)
        self.zygotes = [Zygote(environment) for environment in ENVIRONMENTS]
        self.teacher = Teacher()
        self.base = self.folder / "base"
        write_base(self.base)
        self.cpu_s = 0.0
        self.commands = 0
        self.points: dict[str, int] = {}
        home = self.new_folder("reference")
        for stage in NAMES:
            done = self.command(0, Order(("run", "config.yaml", "--to", stage), str(home), str(home / "said")))
            assert done.code == 0, done.printed
            self.points[stage] = done.points or 0
            shutil.copytree(home / "run", self.folder / "after" / stage)
        self.reference = contents(home / "run")
        self.answers = answers(home / "run" / LEDGER) or {}

    def new_folder(self, name: str) -> Path:
        """A folder with the config."""
        home = self.folder / name
        home.mkdir()
        write_config(home, self.base, self.teacher.url)
        return home

    def command(self, zygote: int, order: Order, meanwhile: Callable[[int], None] | None = None) -> Done:
        """Run a command to its end; `meanwhile` is given its process id."""
        process = self.zygotes[zygote % len(self.zygotes)]
        pid = process.start(order)
        late = threading.Timer(PATIENCE_S, kill_process, (os.pidfd_open(pid),))
        late.start()
        try:
            if meanwhile:
                meanwhile(pid)
        finally:
            done = process.wait()
        if not late.is_alive():
            raise BrokenError(f"hangs: plad {' '.join(order.argv)}\n{done.printed}")
        late.cancel()
        self.commands += 1
        self.cpu_s += done.cpu_s
        return done

    def close(self) -> None:
        """End everything and leave nothing behind."""
        for zygote in self.zygotes:
            zygote.close()
        self.teacher.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Tally:
    """What the sequences came to, for the report."""

    steps: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    states: set[tuple[str, ...]] = field(default_factory=set)
    kills: int = 0
    ways_out: Counter[str] = field(default_factory=Counter)
    unnoticed: Counter[str] = field(default_factory=Counter)


class World:
    """A sequence.

    Args:
        start: the stage that is done when it begins, or "nothing".
    """

    def __init__(self, lab: Lab, tally: Tally, start: str) -> None:
        self.lab, self.tally, self.teacher = lab, tally, lab.teacher
        self.home = Path(tempfile.mkdtemp(prefix="sequence_", dir=lab.folder))
        self.home.chmod(0o755)
        write_config(self.home, lab.base, self.teacher.url)
        self.name = "run"
        self.changes: list[str] = []  # settings that a way out asked for
        if start != "nothing":
            shutil.copytree(lab.folder / "after" / start, self.run)
        self.steps: list[Step] = [("start", {"at": start})]
        self.teacher.forget()
        self.known: Answers = answers(self.ledger) or {}
        self.touched = False  # whether other answers than the undisturbed run's are in order
        self.ledger_hit = False  # a damaged ledger may lose answers, and they are asked for again
        self.damaged: dict[str, bytes] = {}  # by path: what stands there now
        self.copies: dict[str, bytes] = {}  # by path: what stood there
        self.broken = False
        self.see()

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.home / self.name

    @property
    def ledger(self) -> Path:
        """Its answers, which a way out may have left in another place."""
        return self.home / self.changes[0].partition("=")[2] if self.changes else self.run / LEDGER

    def argv(self, *more: str, changes: Sequence[str] = ()) -> tuple[str, ...]:
        """`plad run` in this run's place."""
        return ("run", "config.yaml", f"run.dir={self.name}", *self.changes, *changes, *more)

    def stages_done(self) -> list[str]:
        """By what stands in the manifest."""
        try:
            text = (self.run / "manifest.json").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        return [stage for stage in NAMES if f'\n    "{stage}": {{' in text]

    def points_left(self) -> int:
        """About how many points a run passes from here to its end."""
        done = self.stages_done()
        return sum(n for stage, n in self.lab.points.items() if stage not in done) or 60

    def see(self) -> None:
        """Note the state for the report."""
        done = self.stages_done()
        there = sorted({p.name for p in (self.run / "checkpoints").glob("*")}) if self.run.exists() else []
        staging = "staging" if self.run.exists() and any(self.run.rglob(".*.tmp")) else ""
        self.tally.states.add((*done[-1:], *there, staging, *sorted({Path(d).name for d in self.damaged})))

    # -- a command and what must hold after it

    def command(
        self, *argv: str, zygote: int = 0, meanwhile: Callable[[int], None] | None = None, **order: Any
    ) -> Done:
        """Run a command in this sequence and check what must hold."""
        self._before()
        paid = Counter(self.teacher.paid)
        done = self.lab.command(
            zygote, Order(argv, str(self.home), str(self.lab.folder / f"said{zygote}"), **order), meanwhile
        )
        struck = bool(order.get("strike") or order.get("file_size") or meanwhile)
        self.check_end(done, killed=bool(meanwhile))
        self._check_answers(done, self.teacher.paid - paid, struck)
        self.see()
        return done

    def _before(self) -> None:
        self.teacher.kept, self.teacher.again = set() if self.ledger_hit else marks(self.known), []

    def check_end(self, done: Done, *, killed: bool = False) -> None:
        """The exit code and the message are of a known kind."""
        printed, order = done.printed, done.order
        if order.reader and done.code == CANT:
            return
        self.tally.exits[done.code] += 1
        full = order.strike == "full" or order.file_size
        if done.code == -signal.SIGKILL and (order.strike == "SIGKILL" or killed):
            self.tally.kills += 1
            return
        wrong = None
        if "Traceback" in printed or "unexpected" in printed:
            wrong = "unexpected"
        elif done.code not in KNOWN and not (done.code == 1 and full and "make room" in printed):
            wrong = "exit code"
        elif done.code and order.argv[0] == "run" and "\n  -> " not in printed:
            wrong = "no way out"
        if wrong:
            raise BrokenError(f"{wrong}: {done.code} of plad {' '.join(done.order.argv)}\n{_last(done, self.run)}")

    def _check_answers(self, done: Done, paid: Counter[str], struck: bool) -> None:
        if self.teacher.again:
            raise BrokenError(f"asked again: {self.teacher.again}\n{done.printed}")
        now = answers(self.ledger)
        if now is None:
            if not self.ledger_hit:
                raise BrokenError(f"the ledger can't be read\n{done.printed}")
            return
        lost = [row for key, row in self.known.items() if now.get(key) != row and row[-1] != "failed"]
        if lost and not self.ledger_hit:
            raise BrokenError(f"lost from the ledger: {lost}\n{done.printed}")
        missing = set(paid) - marks(now)
        if len(missing) > (2 * CONCURRENCY if struck else 0):
            raise BrokenError(f"paid and not recorded: {missing}\n{done.printed}")
        twice = [mark for mark, n in paid.items() if n > 1]
        if twice:
            raise BrokenError(f"paid twice: {twice}\n{done.printed}")
        self.known = now

    # -- faults on files

    def files(self) -> list[Path]:
        """Everything in the run directory, folders too."""
        return sorted(self.run.rglob("*"))

    def hurt(self, path: Path) -> None:
        """Note that a file is about to be damaged."""
        inside = [p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()]
        for file in inside:
            self.copies.setdefault(str(file.relative_to(self.run)), file.read_bytes())
        if any("generations.sqlite" in file.name for file in inside):
            self.ledger_hit = self.touched = True

    def hurted(self, path: Path) -> None:
        """Note what stands there now."""
        name = str(path.relative_to(self.run))
        self.damaged[name] = path.read_bytes() if path.is_file() else b""
        self.see()

    # -- the end

    def finish(self) -> None:
        """Undisturbed from here on: every printed way out is followed, and the end must be the undisturbed run's."""
        self.teacher.change("fair", 0)
        self.to_the_end()
        self._compare()

    def to_the_end(self) -> None:
        """Run, and follow what is printed, until all stages are done."""
        said: list[str] = []
        for _ in range(10):
            done = self.command(*self.argv())
            if done.code == 0:
                return
            message = _error(done)
            if message in said:
                raise BrokenError(f"a way out that leads nowhere:\n{message}")
            said.append(message)
            self.follow(message)
        raise BrokenError("ten ways out lead to no end:\n" + "\n".join(said))

    def follow(self, message: str) -> None:
        """Do literally what the first way out that can be done says."""
        ways = re.findall(r"\n  -> (.*)", message)
        where = re.match(r"error: (.*?): ", message)
        for way in ways:
            for pattern, action in _WAYS:
                found = re.search(pattern, way)
                if found:
                    self.tally.ways_out[pattern] += 1
                    action(self, found, where[1] if where else "")
                    return
        raise BrokenError(f"no way out that can be followed:\n{message}")

    def restore(self, where: str) -> None:
        """Put back the copy of a damaged file."""
        name = str(self._path(where).relative_to(self.run))
        back = {n: raw for n, raw in self.copies.items() if n == name or n.startswith(f"{name}/")}
        if not back:
            raise BrokenError(f"there is no copy of {where}, since nothing damaged it")
        for n, raw in back.items():
            target = self.run / n
            if target.is_dir():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw)

    def remove(self, path: Path) -> None:
        """Delete a file or folder of the run."""
        if not path.is_relative_to(self.home) or path in (self.home, self.run):
            raise BrokenError(f"the way out would delete {path}")
        self.ledger_hit = self.ledger_hit or "generations.sqlite" in path.name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _path(self, where: str) -> Path:
        return (self.home / re.sub(r":\d+$", "", where)).absolute()

    def new_run(self) -> None:
        """Go on in another run directory."""
        self.name = f"{self.name}_new"
        self.damaged, self.copies = {}, {}

    def _compare(self) -> None:
        now, then = contents(self.run), self.lab.reference
        wrong = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
        still = {n for n in wrong if n in self.damaged and _bytes(self.run / n) == self.damaged[n]}
        for name in still:
            self.tally.unnoticed[re.sub(r"\d+", "N", name)] += 1
        if self.touched:  # what was asked under another setting was paid for, and stands in the bill
            wrong = [name for name in wrong if name != "report/report.md"]
        if "metrics.jsonl" in self.damaged:  # rows of a log are not made again, nor the curves of them
            wrong = [name for name in wrong if name not in ("metrics.jsonl", "report/report.md")]
        if missing := [name for name in wrong if name not in now and name not in still]:
            raise BrokenError(f"missing at the end: {missing}")
        if spread := [name for name in wrong if name not in still]:
            shown = differing(self.lab.folder / "reference/run" / spread[0], self.run / spread[0])
            raise BrokenError(f"other than undisturbed: {spread}; damaged and not noticed: {sorted(still)}\n{shown}")
        recorded = answers(self.ledger) or {}
        if gone := {key: row for key, row in self.lab.answers.items() if recorded.get(key) != row}:
            raise BrokenError(f"answers other than undisturbed: {list(gone.values())[:3]}")
        if not self.touched and len(recorded) > len(self.lab.answers):
            more = [row for key, row in recorded.items() if key not in self.lab.answers]
            raise BrokenError(f"more answers than undisturbed: {more[:3]}")

    def close(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.home, ignore_errors=True)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _error(done: Done) -> str:
    """The error as printed, with its ways out."""
    at = done.err.rfind("\nerror: ")
    return done.err[at + 1 :] if at >= 0 else done.err


def _last(done: Done, run: Path) -> str:
    text = done.printed[-3000:]
    with contextlib.suppress(OSError):
        log = (run / "run.log").read_text(errors="replace")
        text += "\n-- run.log\n" + log[log.rfind("Traceback") :][-3000:] if "Traceback" in log else ""
    return text


Way = Callable[[World, "re.Match[str]", str], None]


def _again(world: World, found: "re.Match[str]", where: str) -> None:
    pass


def _clean(world: World, found: "re.Match[str]", where: str) -> None:
    world.command(*world.argv("--clean", found[1]))


def _delete(world: World, found: "re.Match[str]", where: str) -> None:
    named = found.groupdict().get("path")
    world.remove(world._path(named or where))


def _delete_folder(world: World, found: "re.Match[str]", where: str) -> None:
    path = world._path(where)
    world.remove(path if path.is_dir() else path.parent)


def _repair(world: World, found: "re.Match[str]", where: str) -> None:
    world.command("ledger", world.name, "--repair")


def _restore(world: World, found: "re.Match[str]", where: str) -> None:
    world.restore(where)


def _new(world: World, found: "re.Match[str]", where: str) -> None:
    if "ledger" in found.groupdict() and found["ledger"]:
        world.changes = [f"generate.ledger={found['ledger']}"]
    world.new_run()


def _stage(world: World, found: "re.Match[str]", where: str) -> None:
    world.command(found[1], "config.yaml", f"run.dir={world.name}")


_WAYS: tuple[tuple[str, Way], ...] = (
    (r"plad ledger \S+ --repair", _repair),
    (r"--clean (\w+)", _clean),
    (r"(?:remove|delete) (?P<path>\S*/\S+)", _delete),
    (r"(?:remove|delete) the folder", _delete_folder),
    (r"(?:remove|delete) (?:it|the file)", _delete),
    (r"restore|put back|put it back", _restore),
    (r"plad (sft|generate|pair|distill|evaluate|report) CONFIG", _stage),
    (r"make room|make space|same command|continue with|put the setting back|plad run CONFIG", _again),
    (r"wait for it|writable for this user", _again),
    (r"run\.dir=NEW generate\.ledger=(?P<ledger>\S+)", _new),
    (r"new run\.dir|another run\.dir|run\.dir=NEW|new folder", _new),
)
