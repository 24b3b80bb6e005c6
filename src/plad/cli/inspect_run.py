"""What a run directory holds, for `status`, `show` and `compare`; works while the run is going on."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from plad.errors import RunDirError
from plad.records import Prompt
from plad.rundir.directory import STAGES, ledger_of, read_manifest

Kind = Literal["pairs", "generations", "judgements"]


def status(run: Path) -> dict[str, Any]:
    """Stages done and pending with their counts, pairs, recorded answers, and who is working on it.

    Raises:
        RunDirError: not a run directory.
    """
    manifest = read_manifest(run)
    done = manifest["stages"]
    return {
        "run": str(run),
        "running": _owner(run),
        "stages": [
            {"stage": s, "done": s in done}
            | ({k: done[s][k] for k in ("seconds", "finished", "counts")} if s in done else {})
            for s in STAGES
        ],
        "pairs": _count_pairs(run),
        "generations": _count_generations(run, manifest),
        "latest": _latest_metrics(run),
        "versions": manifest.get("versions", {}),
    }


def _owner(run: Path) -> str | None:
    """`pid N on HOST` if that process lives; the lock itself is left alone."""
    lock = run / "run.lock"
    text = lock.read_text() if lock.is_file() else ""
    match = re.fullmatch(r"pid (\d+) on (.+)", text)
    if match is None:
        return None
    if match[2] != socket.gethostname():
        return f"{text} (or was: it is another machine)"
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return text


def _count_pairs(run: Path) -> int | None:
    if not (run / "pairs.parquet").is_file():
        return None
    import pyarrow.parquet as pq

    return pq.read_metadata(run / "pairs.parquet").num_rows


def _count_generations(run: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Answers in the run's own ledger; those that it got itself, where it shares one."""
    path = ledger_of(run, manifest)
    if not path.is_file():
        return {}
    from plad.answers.ledger import Ledger

    with Ledger(path, readonly=True) as ledger:
        return ledger.counts(manifest["id"] if "ledger" in manifest else None)


def _latest_metrics(run: Path) -> dict[str, Any] | None:
    """The last whole line of metrics.jsonl."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        return None
    with file.open("rb") as f:
        f.seek(max(0, file.stat().st_size - 65_536))
        lines = f.read().decode("utf-8", errors="replace").split("\n")[:-1]
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return None


def examples_of(run: Path, kind: Kind, n: int) -> list[dict[str, Any]]:
    """The first pairs or judgements, or the latest generations, with the texts they are about.

    Raises:
        RunDirError: not a run directory, or it holds none yet.
    """
    read_manifest(run)
    if kind == "generations":
        return list(_generations(run, n))
    file, stage = ("pairs.parquet", "pair") if kind == "pairs" else ("eval/judgements.parquet", "evaluate")
    if not (run / file).is_file():
        raise RunDirError(f"no {kind} yet", where=str(run), fix=f"plad {stage} CONFIG makes them")
    return list(_pairs(run, n) if kind == "pairs" else _judgements(run, n))


def _pairs(run: Path, n: int) -> Iterator[dict[str, Any]]:
    from plad.data.formats import read_pairs_parquet

    for pair in read_pairs_parquet(run / "pairs.parquet", limit=n):
        yield {k: v for k, v in asdict(pair).items() if not k.endswith("_token_ids")}


def _generations(run: Path, n: int) -> Iterator[dict[str, Any]]:
    from plad.answers.ledger import Ledger

    prompts = prompts_of(run)
    with Ledger(ledger_of(run, read_manifest(run)), readonly=True) as ledger:
        for row in ledger.rows(limit=n):
            answer = asdict(row.generation)
            tokens = len(answer.pop("token_ids"))
            yield {
                "system": row.system,
                **answer,
                "tokens": tokens,
                "seconds": row.seconds,
                **({"model": row.model} if row.model else {}),
                **({"message": row.message} if row.message else {}),
                "prompt": prompts.get(row.generation.example_id),
            }


def prompts_of(run: Path) -> dict[str, Prompt | None]:
    """Prompts by example id; None where two splits use one id for different prompts."""
    from plad.data.formats import read_examples_jsonl

    prompts: dict[str, Prompt | None] = {}
    for split in ("distill", "validation", "test"):
        file = run / f"data/{split}.jsonl"
        for example in read_examples_jsonl(file) if file.is_file() else []:
            same = prompts.get(example.id, example.prompt) == example.prompt
            prompts[example.id] = example.prompt if same else None
    return prompts


def _judgements(run: Path, n: int) -> Iterator[dict[str, Any]]:
    from plad.evaluate.files import read_answers, read_judgements

    file = run / "eval/answers.jsonl"
    found = list(islice(read_judgements(run / "eval/judgements.parquet"), n))
    wanted = {j.example_id for j in found}
    answers = {r["id"]: r["answers"] for r in read_answers(file) if r["id"] in wanted} if file.is_file() else {}
    targets = _targets(run)
    for j in found:
        texts = {system: a["text"] for system, a in answers.get(j.example_id, {}).items()}
        texts["target"] = targets.get(j.example_id)
        yield {**asdict(j), "answer": texts.get(j.system), "opponent_answer": texts.get(j.opponent)}


def _targets(run: Path) -> dict[str, str | None]:
    from plad.data.formats import read_examples_jsonl

    file = run / "data/test.jsonl"
    return {e.id: e.target for e in read_examples_jsonl(file)} if file.is_file() else {}


def by_name(runs: Sequence[Path]) -> dict[str, Path]:
    """Run directories by a name that tells them apart; one that is named twice counts once."""
    places = {run.resolve(): run for run in runs}
    depth = 1
    while len({p.parts[-depth:] for p in places}) < len(places):
        depth += 1
    return {str(Path(*place.parts[-depth:])): run for place, run in places.items()}


def metrics_of(runs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """metrics.json of each run, by a name that tells them apart; then, of runs that differ only in seed, their mean.

    Raises:
        RunDirError: one is no run directory, or was not evaluated yet.
    """
    found: dict[str, dict[str, Any]] = {}
    places = by_name(runs)
    for name, run in places.items():
        read_manifest(run)
        file = run / "eval/metrics.json"
        if not file.is_file():
            raise RunDirError("not evaluated yet", where=str(run), fix="plad evaluate CONFIG")
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as e:
            raise RunDirError(f"is damaged ({e})", where=str(file), fix="plad run CONFIG --clean evaluate") from None
        found[name] = metrics
    return found | (_means_over_seeds(places) if len(places) > 1 else {})


def _means_over_seeds(places: dict[str, Path]) -> dict[str, dict[str, Any]]:
    from plad.evaluate.seeds import mean_metrics, seed_groups

    return {
        f"mean of {len(group)} seeds ({', '.join(group)})": mean_metrics(
            {name: places[name] for name in group}
        ).to_json()
        for group in seed_groups(places)
    }
