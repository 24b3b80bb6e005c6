"""`plad show`: pairs, answers and judgements of a run, a panel a prompt, texts that belong together side by side."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import typer

from plad.cli.app import AsJson, RunPath, print_result
from plad.cli.guard import guard
from plad.errors import RunDirError
from plad.records import TARGET, TEACHER, Judgement, Pair, Prompt
from plad.report.console import panel

if TYPE_CHECKING:
    from rich.console import RenderableType

    from plad.answers.ledger import Entry

commands = typer.Typer()

Kind = Literal["pairs", "generations", "judgements"]
Split = Literal["distill", "validation", "test"]
_SPLITS: tuple[Split, ...] = ("distill", "validation", "test")
_MADE_BY: Mapping[Kind, str] = {"pairs": "pair", "generations": "generate", "judgements": "evaluate"}


@commands.command()
def show(
    run: RunPath,
    kind: Annotated[
        Kind,
        typer.Argument(metavar="pairs|generations|judgements", help="What is shown.", show_default=False),
    ],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many prompts.")] = 5,
    system: Annotated[
        str | None, typer.Option("--system", metavar="NAME", help="Only what a text of this system takes part in.")
    ] = None,
    split: Annotated[Split | None, typer.Option("--split", help="Only prompts of this split.")] = None,
    draw: Annotated[
        bool, typer.Option("--random", help="Any prompts; otherwise the first, of answers the last.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Of --random: the same seed shows the same.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show examples of what a run holds, every prompt once."""
    with guard():
        drawn = (random.SystemRandom().randrange(10_000) if seed is None else seed) if draw else None
        examples = examples_of(run, kind, n, Filter(system, split, drawn))
        print_result(examples, as_json, lambda shown: (e.panel() for e in shown))
        if drawn is not None and not as_json:
            typer.echo(f"the same again: --random --seed {drawn}")


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for: all where nothing is given; with a seed any prompts, otherwise the first."""

    system: str | None = None
    split: Split | None = None
    seed: int | None = None


class Item(Protocol):
    """Something that a run holds for a prompt."""

    @property
    def example_id(self) -> str: ...

    @property
    def heading(self) -> str:
        """What is said of all its texts."""
        ...

    @property
    def texts(self) -> Sequence[tuple[str, str]]:
        """Labels and texts."""
        ...

    @property
    def systems(self) -> Sequence[str]:
        """Whose texts they are."""
        ...

    def to_json(self) -> Mapping[str, object]: ...


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair, with whose texts they are and what was measured of them."""

    pair: Pair

    @property
    def example_id(self) -> str:
        return self.pair.example_id

    @property
    def systems(self) -> Sequence[str]:
        return self.pair.chosen_source, self.pair.rejected_source

    @property
    def heading(self) -> str:
        p = self.pair
        swapped = p.chosen_source != TEACHER and p.rejected_source == TEACHER
        return p.id + (": swapped by the scorer" if swapped else "")

    @property
    def texts(self) -> Sequence[tuple[str, str]]:
        sides = (("chosen", self.pair.chosen), ("rejected", self.pair.rejected))
        return [
            (f"{side} ({', '.join([source, *_measured(self.pair, index)])})", text)
            for index, ((side, text), source) in enumerate(zip(sides, self.systems, strict=True))
        ]

    def to_json(self) -> Mapping[str, object]:
        return {k: v for k, v in asdict(self.pair).items() if not k.endswith("_token_ids") and k != "prompt"}


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """A recorded answer; of its token ids only the number."""

    recorded: "Entry"

    @property
    def example_id(self) -> str:
        return self.recorded.generation.example_id

    @property
    def systems(self) -> Sequence[str]:
        return (self.recorded.system,)

    @property
    def heading(self) -> str:
        return ""

    @property
    def texts(self) -> Sequence[tuple[str, str]]:
        g = self.recorded.generation
        return [(f"{self.recorded.system}, sample {g.sample}: {g.outcome}, {len(g.token_ids)} tokens", g.text)]

    def to_json(self) -> Mapping[str, object]:
        r = self.recorded
        answer = {k: v for k, v in asdict(r.generation).items() if k != "token_ids"}
        notes = {name: text for name, text in (("model", r.model), ("message", r.message)) if text}
        return {"system": r.system, **answer, "tokens": len(r.generation.token_ids), "seconds": r.seconds, **notes}


@dataclass(frozen=True, slots=True)
class ShownJudgement:
    """A judgement with the two texts; None where they were not kept."""

    judgement: Judgement
    answer: str | None
    opponent_answer: str | None

    @property
    def example_id(self) -> str:
        return self.judgement.example_id

    @property
    def systems(self) -> Sequence[str]:
        return self.judgement.system, self.judgement.opponent

    @property
    def heading(self) -> str:
        j = self.judgement
        return f"{j.judge} says {j.verdict} ({j.score:.4g} : {j.opponent_score:.4g})"

    @property
    def texts(self) -> Sequence[tuple[str, str]]:
        both = zip(self.systems, (self.answer, self.opponent_answer), strict=True)
        return [(name, "(text not kept)" if text is None else text) for name, text in both]

    def to_json(self) -> Mapping[str, object]:
        return {**asdict(self.judgement), "answer": self.answer, "opponent_answer": self.opponent_answer}


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt with what the run holds for it; the prompt and its split are None where they can't be told."""

    id: str
    split: str | None
    prompt: Prompt | None
    items: Sequence[Item]

    def to_json(self) -> object:
        """The prompt once, then the items."""
        return {"id": self.id, "split": self.split, "prompt": self.prompt, "items": [i.to_json() for i in self.items]}

    def panel(self) -> "RenderableType":
        """The prompt, and under it the texts in two columns."""
        rows = [("", [("prompt", _text(self.prompt))])] if self.prompt is not None else []
        for heading, items in groupby(self.items, lambda i: i.heading):
            rows.append((heading, list(chain.from_iterable(i.texts for i in items))))
        return panel(self.id if self.split is None else f"{self.id} ({self.split})", rows)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an example stands; the prompt is None where two splits use one id for different prompts."""

    split: Split
    prompt: Prompt | None


def examples_of(run: Path, kind: Kind, n: int, wanted: Filter) -> Sequence[Shown]:
    """The first `n` prompts of a kind with their items, of answers those recorded last; or any `n`.

    Raises:
        RunDirError: not a run directory, or it holds none of what is wanted.
    """
    from plad.rundir.manifest import read_manifest

    stages, places = read_manifest(run).stages, places_of(run)
    shown = _READERS[kind](run, n, wanted, places)
    if shown:
        return [
            Shown(i, p.split, p.prompt, of_prompt) if (p := places.get(i)) else Shown(i, None, None, of_prompt)
            for i, of_prompt in shown
        ]
    asked = [f"--{name} {value}" for name, value in (("system", wanted.system), ("split", wanted.split)) if value]
    if asked:
        fix = f"plad show {run} {kind} shows what there is"
        raise RunDirError(f"no {kind} with {' '.join(asked)}", where=str(run), fix=fix)
    if _MADE_BY[kind] in stages:
        raise RunDirError(
            f"the stage {_MADE_BY[kind]} made no {kind}", where=str(run), fix=f"plad report {run} says why"
        )
    raise RunDirError(f"no {kind} yet", where=str(run), fix=f"plad {_MADE_BY[kind]} CONFIG makes them")


def places_of(run: Path) -> dict[str, Place]:
    """Split and prompt of every example of a run."""
    from plad.data.formats import iter_examples_jsonl

    places: dict[str, Place] = {}
    for split in _SPLITS:
        file = run / f"data/{split}.jsonl"
        for example in iter_examples_jsonl(file) if file.exists() else ():
            before = places.get(example.id)
            same = before is None or before.prompt == example.prompt
            places[example.id] = Place(split, example.prompt if same else None)
    return places


_Places = Mapping[str, Place]
_Groups = Sequence[tuple[str, Sequence[Item]]]


def _chosen(items: Iterable[Item], n: int, wanted: Filter, places: _Places) -> _Groups:
    """The first `n` prompts of a stream in which a prompt's items stand together, or any `n`; no more are kept."""
    fitting = (
        item
        for item in items
        if wanted.system in (None, *item.systems)
        and (wanted.split is None or (item.example_id in places and places[item.example_id].split == wanted.split))
    )
    groups = ((i, list(of_prompt)) for i, of_prompt in groupby(fitting, lambda item: item.example_id))
    chosen = list(islice(groups, n))
    if wanted.seed is not None:
        draw = random.Random(wanted.seed)
        for seen, group in enumerate(groups, start=n + 1):
            if (place := draw.randrange(seen)) < n:
                chosen[place] = group
    return chosen


def _pairs(run: Path, n: int, wanted: Filter, places: _Places) -> _Groups:
    from plad.data.formats import iter_pairs_parquet

    file = run / "pairs.parquet"
    return _chosen(map(ShownPair, iter_pairs_parquet(file)), n, wanted, places) if file.exists() else []


def _generations(run: Path, n: int, wanted: Filter, places: _Places) -> _Groups:
    from plad.answers.ledger import Ledger
    from plad.rundir.manifest import read_manifest

    if not (file := read_manifest(run).ledger_file(run)).exists():
        return []
    with Ledger(file, readonly=True) as ledger:
        latest = ledger.example_ids(wanted.system)
        if wanted.split is not None:
            latest = [i for i in latest if i in places and places[i].split == wanted.split]
        chosen = latest[:n] if wanted.seed is None else random.Random(wanted.seed).sample(latest, min(n, len(latest)))
        answers: dict[str, list[Item]] = {i: [] for i in chosen}
        for row in sorted(ledger.rows(wanted.system, chosen), key=lambda r: (r.generation.sample, r.system)):
            answers[row.generation.example_id].append(ShownAnswer(row))
    return list(answers.items())


def _judgements(run: Path, n: int, wanted: Filter, places: _Places) -> _Groups:
    from plad.evaluate.files import read_judgements

    if not (file := run / "eval/judgements.parquet").exists():
        return []
    order = {i: at for at, i in enumerate(sorted(places, key=lambda i: places[i].split, reverse=True))}  # test first
    judgements = sorted(read_judgements(file), key=lambda j: order.get(j.example_id, len(order)))
    groups = _chosen((ShownJudgement(j, None, None) for j in judgements), n, wanted, places)
    texts = _judged_texts(run, {i for i, _ in groups})
    return [(i, [_with_texts(item, texts) for item in items]) for i, items in groups]


_READERS: Mapping[Kind, Callable[[Path, int, Filter, _Places], _Groups]] = {
    "pairs": _pairs,
    "generations": _generations,
    "judgements": _judgements,
}
_Texts = Mapping[tuple[str, str], str | None]  # of an example and a system


def _judged_texts(run: Path, ids: set[str]) -> _Texts:
    from plad.data.formats import iter_examples_jsonl
    from plad.evaluate.files import read_answers

    texts: dict[tuple[str, str], str | None] = {}
    if (file := run / "eval/answers.jsonl").exists():
        for row in read_answers(file):
            if row["id"] in ids:
                texts |= {(row["id"], system): answer.get("text") for system, answer in row["answers"].items()}
    if (file := run / "data/test.jsonl").exists():
        texts |= {(e.id, TARGET): e.target for e in iter_examples_jsonl(file) if e.id in ids}
    return texts


def _with_texts(item: Item, texts: _Texts) -> Item:
    assert isinstance(item, ShownJudgement)
    first, second = (texts.get((item.example_id, system)) for system in item.systems)
    return ShownJudgement(item.judgement, first, second)


def _measured(pair: Pair, index: int) -> list[str]:
    return [f"{name.replace('_', ' ')} {both[index]:.4g}" for name, both in pair.values.items()]


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
