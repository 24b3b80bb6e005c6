"""python -m tests.faults.chaos [--sequences 200] [--jobs 2] [--seed N] [--json FILE] [--replay STEPS]"""

import argparse
import json
import secrets
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.faults.chaos.machine import Outcome, in_lab, replay, search
from tests.faults.chaos.zygote import end_with_parent


def main() -> int:
    """Run sequences and print what they came to; 1 if one of them broke an invariant."""
    parser = argparse.ArgumentParser(description="A tiny whole run, disturbed in every way.")
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--steps", type=int, default=6, help="most steps of a sequence")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--replay", metavar="STEPS", help="only this sequence, as a failure prints it")
    given = parser.parse_args()
    if given.replay:
        outcomes = [in_lab(replay, json.loads(given.replay))]
    else:
        print(f"seed {given.seed}, {given.sequences} sequences of at most {given.steps} steps, {given.jobs} at once")
        shares = [given.sequences // given.jobs + (i < given.sequences % given.jobs) for i in range(given.jobs)]
        with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            seeds = [given.seed + i for i in range(given.jobs)]
            searches = [
                pool.submit(in_lab, search, n, seed, given.steps) for n, seed in zip(shares, seeds, strict=True)
            ]
            outcomes = [one.result() for one in searches]
    found = figures(outcomes)
    print("\n" + told(found))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found | {"seed": given.seed}, indent=2) + "\n", encoding="utf-8")
    return int(found["broken"] > 0)


_STARTED = time.monotonic()


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """All of them together."""
    tallies = [outcome.tally for outcome in outcomes]
    together = {name: sum((getattr(t, name) for t in tallies), Counter()) for name in ("steps", "exits", "ways_out")}
    return {
        "sequences": sum(o.sequences for o in outcomes),
        "broken": sum(len(o.failures) for o in outcomes),
        "commands": sum(o.commands for o in outcomes),
        "states": len(set().union(*(t.states for t in tallies))),
        "kills": sum(t.kills for t in tallies),
        "faults": dict(sorted(together["steps"].items())),
        "exit_codes": {str(code): n for code, n in sorted(together["exits"].items())},
        "ways_out_followed": dict(together["ways_out"].most_common()),
        "damage_that_nothing_read": dict(sum((t.unnoticed for t in tallies), Counter()).most_common()),
        "computing_seconds": round(sum(o.cpu_s for o in outcomes), 1),
        "seconds": round(time.monotonic() - _STARTED, 1),
    }


def told(found: dict[str, Any]) -> str:
    """As lines."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines.append(f"{name}:" + "".join(f"\n    {n:>5} {what}" for what, n in value.items()))
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
