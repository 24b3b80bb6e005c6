"""`plad show`: pairs, answers and judgements of a run, one panel each."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.errors import RunDirError
from plad.records import Prompt
from plad.report.console import panel
from plad.rundir.manifest import read_manifest

if TYPE_CHECKING:
    from rich.console import RenderableType

commands = typer.Typer()

Kind = Literal["pairs", "generations", "judgements"]


@commands.command()
def show(
    run: RunPath,
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="pairs|generations|judgements",
            help="The first pairs or judgements, or the latest answers.",
            show_default=False,
        ),
    ],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show examples of what a run holds."""
    with guard():
        print_result(examples_of(run, kind, n), as_json, lambda rows: map(example_view, rows))


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
    with Ledger(read_manifest(run).ledger_file(run), readonly=True) as ledger:
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


def example_view(row: Mapping[str, Any]) -> "RenderableType":
    """One pair, generation or judgement."""
    if "verdict" in row:
        scores = f"{row['score']:.4g} : {row['opponent_score']:.4g}"
        title = f"{row['example_id']}: {row['judge']} says {row['verdict']} ({scores})"
        answers = [(row["system"], row["answer"]), (row["opponent"], row["opponent_answer"])]
        return panel(title, [(name, text if text is not None else "(text not kept)") for name, text in answers])
    prompt = [("prompt", _prompt(row["prompt"]))] if row["prompt"] is not None else []
    if "chosen" in row:
        texts = [(_side(row, index, side), row[side]) for index, side in enumerate(("chosen", "rejected"))]
        swapped = row["chosen_source"] != "teacher" and row["rejected_source"] == "teacher"
        return panel(row["id"] + (": swapped by the scorer" if swapped else ""), [*prompt, *texts])
    title = f"{row['example_id']} sample {row['sample']}: {row['outcome']}, {row['tokens']} tokens"
    return panel(title, [*prompt, (row["system"], row["text"])])


def _side(pair: Mapping[str, Any], index: int, side: str) -> str:
    """`chosen (teacher, similarity 2.5)`: whose text it is, and what was measured of it."""
    measured = [f"{name.replace('_', ' ')} {both[index]:.4g}" for name, both in pair["values"].items()]
    return f"{side} ({', '.join([pair[f'{side}_source'], *measured])})"


def _prompt(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
