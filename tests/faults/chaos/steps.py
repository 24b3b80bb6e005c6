"""The steps of a sequence: a name and its numbers, so that a sequence is data that can be run again."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plad.pipeline.stage import NAMES
from tests.faults.chaos.task import WEATHER
from tests.faults.chaos.world import World
from tests.faults.chaos.zygote import Order, kill_process

HOWS = ("cut", "flip", "delete", "rubbish", "empty", "folder")
LOOKS = (
    ("status", "RUN"),
    ("status", "RUN", "--json"),
    ("show", "RUN", "pairs"),
    ("show", "RUN", "generations"),
    ("show", "RUN", "judgements"),
    ("ledger", "RUN"),
    ("report", "RUN", "--terminal"),
    ("validate", "config.yaml"),
)
CHANGES = (
    "distill.learning_rate=0.02",
    "generate.temperature=0.9",
    "sft.learning_rate=0.02",
    "evaluate.bootstrap=40",
    "data.sft_share=0.4",
    "run.seed=2",
    "evaluate.baselines=[]",
    "distill.rounds=1",
)


def go_on(world: World, to: int = len(NAMES) - 1, zygote: int = 0) -> None:
    """The same command again, up to some stage."""
    world.command(*world.argv("--to", NAMES[to]), zygote=zygote)


def strike(world: World, kind: str, at: int, zygote: int = 0) -> None:
    """A signal, or a disk that is full from there on, at a point of what is left (thousandths)."""
    point = 1 + at * world.points_left() // 1000
    done = world.command(*world.argv(), zygote=zygote, at=point, strike=kind)
    if kind in ("SIGINT", "SIGTERM") and done.code not in (0, 130, 2):
        raise AssertionError(done.printed)


def kill_after(world: World, ms: int, zygote: int = 0) -> None:
    """SIGKILL at a moment of the clock, which may be inside a library."""

    def kill(pid: int) -> None:
        threading.Timer(ms / 1000, kill_process, (os.pidfd_open(pid),)).start()

    world.command(*world.argv(), zygote=zygote, meanwhile=kill)


def small_files(world: World, kib: int, zygote: int = 0) -> None:
    """No file may grow beyond a size: a quota."""
    world.command(*world.argv(), zygote=zygote, file_size=kib * 1024)


def damage(world: World, which: int, how: str, place: int = 500) -> None:
    """Cut, flip a bit of, delete or replace any file; delete any folder."""
    there = world.files()
    if not there:
        return
    path = there[which % len(there)]
    world.hurt(path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        _damage_file(path, how, place)
    world.hurted(path)


def _damage_file(path: Path, how: str, place: int) -> None:
    raw = path.read_bytes()
    at = min(len(raw) - 1, place * len(raw) // 1000)
    match how:
        case "cut":
            path.write_bytes(raw[:at])
        case "flip" if raw:
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << place % 8]) + raw[at + 1 :])
        case "delete":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case _:
            path.write_bytes(b"\x00\xff[1, {rubbish\n" * 3)


def change_and_back(world: World, which: int, to: int, zygote: int = 0) -> None:
    """Another setting for one command."""
    world.touched = True
    world.command(*world.argv("--to", NAMES[to], changes=[CHANGES[which % len(CHANGES)]]), zygote=zygote)


def storm(world: World, kind: str, after: int, zygote: int = 0) -> None:
    """The teacher's server misbehaves after some good answers, for one command."""
    world.teacher.change(kind, after)
    try:
        world.command(*world.argv(), zygote=zygote)
    finally:
        world.teacher.change("fair", 0)


def move(world: World, copy: bool) -> None:
    """The run directory gets another name, or a copy goes on."""
    if not world.run.exists():
        return
    former = world.run
    world.name = f"{world.name[:3]}_{len(world.steps)}"
    if copy:
        shutil.copytree(former, world.run)
    else:
        former.rename(world.run)


def look(world: World, which: int, reader: bool = False, zygote: int = 0) -> None:
    """A command that only reads, perhaps where nothing can be written."""
    argv = [world.name if word == "RUN" else word for word in LOOKS[which % len(LOOKS)]]
    before = _bytes_of(world.run) if reader else None
    world.command(*argv, zygote=zygote, reader=reader)
    if before is not None and _bytes_of(world.run) != before:
        raise AssertionError(f"a reader changed something: plad {' '.join(argv)}")


def readonly(world: World, zygote: int = 0) -> None:
    """A run on a file system that can't be written."""
    world.command(*world.argv(), zygote=zygote, reader=True)


def second(world: World, ms: int, which: int) -> None:
    """While one command works, another one starts in the same directory."""
    argv = [world.name if word == "RUN" else word for word in ((*world.argv(),), *LOOKS)[which % (len(LOOKS) + 1)]]

    def start(_: int) -> None:
        time.sleep(ms / 1000)
        done = world.lab.command(1, Order(tuple(argv), str(world.home), str(world.lab.folder / "said_second")))
        world.check_end(done)

    world.command(*world.argv(), meanwhile=start)


def _bytes_of(run: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in run.rglob("*") if p.is_file()}


STEPS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        go_on,
        strike,
        kill_after,
        small_files,
        damage,
        change_and_back,
        storm,
        move,
        look,
        readonly,
        second,
    )
}
STORMS = WEATHER[1:]


def do(world: World, name: str, **numbers: Any) -> None:
    """Do a step and note it."""
    world.steps.append((name, numbers))
    kind = numbers.get("kind") or numbers.get("how") or ("copy" if numbers.get("copy") else "")
    world.tally.steps[f"{name} {kind}".strip()] += 1
    STEPS[name](world, **numbers)
