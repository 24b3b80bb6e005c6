"""``python -m benchmarks``: measure, print the table, write benchmarks/latest.json."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measure import QUIET

LATEST = Path(__file__).with_name("latest.json")
MODEL = Path("models/SmolLM2-135M-Instruct")
LAYERS, VOCABULARY = 10, 16_384  # of 30 and 49,152


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "load_at_start": load, "threads": 1}


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of a Llama-like model (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two comparisons, once each: does everything run?")
    parser.add_argument(
        "--only", metavar="TEXT", help="comparisons whose name holds this text, such as encoder-decoder"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output", type=Path, help=f"default: {LATEST.name} beside this module; nothing with --quick or --only"
    )
    options = parser.parse_args(arguments)
    if not (options.model / "config.json").is_file():
        print(f"error: there is no model in {options.model}\n  fix: make model", file=sys.stderr)
        return 2
    os.environ.update(QUIET)
    return measure(options)


def measure(options: argparse.Namespace) -> int:
    """Make the models, run the plan, show and keep the results."""
    import torch
    from rich.console import Console
    from transformers import AutoConfig

    import plad
    from benchmarks.models import T5_SHAPES, cut, random_t5
    from benchmarks.plan import FULL, QUICK, only
    from benchmarks.results import different, table
    from benchmarks.run import Subject, run

    torch.set_num_threads(1)
    console, started = Console(width=None if sys.stdout.isatty() else 180), time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{(time.monotonic() - started) / 60:5.1f} min[/]  {line}", highlight=False)

    where = machine()
    plan = only(QUICK if options.quick else FULL, options.only or "")
    sizes = {cell.size for cell in (*plan.train, *plan.generate)}
    models = {"full": options.model}
    vocabularies = {"full": AutoConfig.from_pretrained(str(options.model)).vocab_size}
    with tempfile.TemporaryDirectory() as folder:
        if "third" in sizes:
            models["third"], vocabularies["third"] = Path(folder) / "third", VOCABULARY
            cut(options.model, models["third"], layers=LAYERS, vocabulary=VOCABULARY)
        for shape in sizes & T5_SHAPES.keys():
            models[shape] = Path(folder) / shape.replace("/", "-")
            vocabularies[shape] = random_t5(shape, models[shape])
        results = run(plan, Subject(options.model, models, vocabularies), options.seed, say)
    names = {"full": options.model.name, "third": "a third of it", **{shape: f"{shape}, random" for shape in T5_SHAPES}}
    console.print(table(results, names))
    if wrong := different(results):
        print(f"error: not the same loss: {', '.join(wrong)}", file=sys.stderr)
        return 1
    packages = ("torch", "transformers", "trl", "peft")
    report = {
        **results,
        "model": options.model.name,
        "machine": where,
        "versions": {
            "plad": plad.__version__,
            "python": platform.python_version(),
            **{p: version(p) for p in packages},
        },
        "seeds": [options.seed],
        "n": {kind: sum(row["n"] for row in results[kind]) for kind in ("train", "generate")},
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    output = options.output or (None if options.quick or options.only else LATEST)
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")
        console.print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
