"""`plad show`: pairs, answers and judgements of a run, one panel each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.errors import RunDirError
from plad.records import Judgement, Pair, Prompt
from plad.report.console import panel

if TYPE_CHECKING:
    from rich.console import RenderableType

    from plad.answers.ledger import Entry

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
        print_result(examples_of(run, kind, n), as_json, lambda examples: (e.panel() for e in examples))


@dataclass(frozen=True, slots=True)
class PairExample:
    """A pair."""

    pair: Pair

    def to_json(self) -> object:
        """All but token ids."""
        return {k: v for k, v in asdict(self.pair).items() if not k.endswith("_token_ids")}

    def panel(self) -> "RenderableType":
        """Prompt and both texts, with whose they are and what was measured of them."""
        p = self.pair
        sides = (("chosen", p.chosen_source, p.chosen), ("rejected", p.rejected_source, p.rejected))
        texts = [
            (f"{side} ({', '.join([source, *_measured(p, index)])})", text)
            for index, (side, source, text) in enumerate(sides)
        ]
        swapped = p.chosen_source != "teacher" and p.rejected_source == "teacher"
        return panel(p.id + (": swapped by the scorer" if swapped else ""), [("prompt", _text(p.prompt)), *texts])


@dataclass(frozen=True, slots=True)
class AnswerExample:
    """A recorded answer; its prompt is None where it can't be told."""

    recorded: "Entry"
    prompt: Prompt | None

    def to_json(self) -> object:
        """All but token ids, of which there is the number."""
        r = self.recorded
        answer = {k: v for k, v in asdict(r.generation).items() if k != "token_ids"}
        said = {name: text for name, text in (("model", r.model), ("message", r.message)) if text}
        tokens = {"tokens": len(r.generation.token_ids), "seconds": r.seconds}
        return {"system": r.system, **answer, **tokens, **said, "prompt": self.prompt}

    def panel(self) -> "RenderableType":
        """Prompt and answer."""
        g = self.recorded.generation
        title = f"{g.example_id} sample {g.sample}: {g.outcome}, {len(g.token_ids)} tokens"
        prompt = [("prompt", _text(self.prompt))] if self.prompt is not None else []
        return panel(title, [*prompt, (self.recorded.system, g.text)])


@dataclass(frozen=True, slots=True)
class JudgementExample:
    """A judgement with the two texts, where they were kept."""

    judgement: Judgement
    answer: str | None
    opponent_answer: str | None

    def to_json(self) -> object:
        """All in one."""
        return {**asdict(self.judgement), "answer": self.answer, "opponent_answer": self.opponent_answer}

    def panel(self) -> "RenderableType":
        """Verdict and texts."""
        j = self.judgement
        title = f"{j.example_id}: {j.judge} says {j.verdict} ({j.score:.4g} : {j.opponent_score:.4g})"
        answers = ((j.system, self.answer), (j.opponent, self.opponent_answer))
        return panel(title, [(name, "(text not kept)" if text is None else text) for name, text in answers])


def examples_of(run: Path, kind: Kind, n: int) -> Sequence[PairExample | AnswerExample | JudgementExample]:
    """The first pairs or judgements, or the latest generations, with the texts they are about.

    Raises:
        RunDirError: not a run directory, or it holds none yet.
    """
    from plad.rundir.manifest import read_manifest

    read_manifest(run)
    if kind == "generations":
        return list(_generations(run, n))
    file, stage = ("pairs.parquet", "pair") if kind == "pairs" else ("eval/judgements.parquet", "evaluate")
    if not (run / file).is_file():
        raise RunDirError(f"no {kind} yet", where=str(run), fix=f"plad {stage} CONFIG makes them")
    if kind == "judgements":
        return list(_judgements(run, n))
    from plad.data.formats import read_pairs_parquet

    return [PairExample(pair) for pair in read_pairs_parquet(run / file, limit=n)]


def _generations(run: Path, n: int) -> Iterator[AnswerExample]:
    from plad.answers.ledger import Ledger
    from plad.rundir.manifest import read_manifest

    prompts = prompts_of(run)
    with Ledger(read_manifest(run).ledger_file(run), readonly=True) as ledger:
        for row in ledger.rows(limit=n):
            yield AnswerExample(row, prompts.get(row.generation.example_id))


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


def _judgements(run: Path, n: int) -> Iterator[JudgementExample]:
    from plad.data.formats import read_examples_jsonl
    from plad.evaluate.files import read_answers, read_judgements

    judgements = list(islice(read_judgements(run / "eval/judgements.parquet"), n))
    ids = {j.example_id for j in judgements}
    texts: dict[tuple[str, str], str | None] = {}  # of a system to an example
    if (file := run / "eval/answers.jsonl").is_file():
        for row in read_answers(file):
            if row["id"] in ids:
                texts |= {(row["id"], system): answer.get("text") for system, answer in row["answers"].items()}
    if (file := run / "data/test.jsonl").is_file():
        texts |= {(e.id, "target"): e.target for e in read_examples_jsonl(file)}
    for j in judgements:
        yield JudgementExample(j, texts.get((j.example_id, j.system)), texts.get((j.example_id, j.opponent)))


def _measured(pair: Pair, index: int) -> list[str]:
    return [f"{name.replace('_', ' ')} {both[index]:.4g}" for name, both in pair.values.items()]


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
