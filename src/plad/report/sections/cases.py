"""What the case browser of a page holds: prompts, answers with their marks, and scores, small enough for one file."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plad.evaluate.run import SFT, STUDENT, TARGET
from plad.evaluate.texts import count_words
from plad.records import Example, Judgement, Outcome, Prompt
from plad.report.facts import Facts
from plad.report.sections.keypoints import GROUNDED, Marked, counts, mark_answer, mark_shared, share_in
from plad.report.wording import harmless, order_systems, system_name
from plad.text import redact

CASES = 1000  # examples a page holds at most
BUDGET = 2_300_000  # bytes of their data; with figures and tables the page stays below 3 MB
CUTS = (20_000, 8_000, 4_000, 2_500, 1_600, 1_000, 600, 300)  # characters of a text that are kept, tried in order
NAME = 80  # characters of an id


@dataclass(frozen=True, slots=True)
class System:
    """Whose answers a page shows: a name for people, texts by example id, and how each answer ended."""

    key: str
    name: str
    texts: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Cases:
    """The examples of a page.

    Attributes:
        data: what the script reads; every text in it is harmless.
        shown, total: examples on the page, and in the test set.
        grounded: share of the targets' content words that stand in the prompts; None without targets.
        cut: characters a text was cut at.
    """

    data: Mapping[str, Any]
    shown: int
    total: int
    grounded: float | None
    cut: int

    def json(self) -> str:
        """The data as JSON that can stand inside a script element."""
        return embed(self.data)


def embed(value: Any) -> str:
    """JSON in which nothing can end a script element or open a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def run_systems(facts: Facts) -> list[System]:
    """The systems whose answers a run keeps, the target first."""
    names = order_systems(dict.fromkeys(s for row in facts.answers.values() for s in row if s != TARGET))
    found = []
    for name in names:
        rows = {i: row[name] for i, row in facts.answers.items() if name in row}
        notes = {i: (f"{r['tokens']:,} tokens", *_OUTCOMES.get(r["outcome"], ())) for i, r in rows.items()}
        found.append(System(name, system_name(name), {i: r["text"] for i, r in rows.items()}, notes))
    return found


def cases(
    examples: Mapping[str, Example], systems: Sequence[System], judgements: Mapping[str, Sequence[Judgement]]
) -> Cases | None:
    """Pack the examples that every page of these systems can show; None without answers.

    Args:
        examples: test rows by id.
        systems: in the order of the page; the answer that is compared first comes before its rival.
        judgements: of each system's answers, by its key.
    """
    ids = [i for i in examples if any(i in s.texts for s in systems)]
    if not ids:
        return None
    chosen = ids if len(ids) <= CASES else [ids[k * len(ids) // CASES] for k in range(CASES)]
    prompts = {i: counts(_joined(examples[i].prompt)) for i in ids}
    targets = {i: counts(t) for i in ids if (t := examples[i].target) is not None}
    grounded = share_in((targets[i], prompts[i]) for i in targets)
    judges = list(dict.fromkeys(j.judge for rows in judgements.values() for j in rows if j.opponent == TARGET))
    scores = {key: _scores(rows) for key, rows in judgements.items()}
    texts = [t for i in chosen for t in _texts(examples[i], systems)]
    packed: list[dict[str, Any]] = []
    cut = CUTS[-1]
    for cut in CUTS:
        if sum(len(t[:cut].encode("utf-8", "replace")) for t in texts) > BUDGET:
            continue
        packer = _Packer(systems, judges, scores, cut, grounded is not None and grounded >= GROUNDED)
        packed = [packer.case(examples[i], prompts[i]) for i in chosen]
        if sum(len(embed(c).encode()) for c in packed) <= BUDGET:
            break
    data = {
        "systems": [["target", system_name(TARGET)], *([shown(s.key), shown(s.name)] for s in systems)],
        "judges": [shown(j) for j in judges],
        "cases": packed,
    }
    return Cases(data, len(chosen), len(ids), grounded, cut)


def run_cases(facts: Facts) -> Cases | None:
    """The examples of one run: the distilled student is compared with the student before distillation first."""
    order = [STUDENT, SFT]
    systems = run_systems(facts)
    known = [s for key in order for s in systems if s.key == key]
    kept = [j for j in facts.judgements if j.opponent == TARGET]
    judged = {s.key: [j for j in kept if j.system == s.key] for s in systems}
    return cases(facts.test, [*known, *(s for s in systems if s.key not in order)], judged)


def shown(text: str) -> str:
    """A name or text as a page may hold it."""
    return redact(harmless(text))


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    return [("", prompt)] if isinstance(prompt, str) else [(m["role"], m["content"]) for m in prompt]


def _joined(prompt: Prompt) -> str:
    return "\n\n".join(content for _, content in _turns(prompt))


def _texts(example: Example, systems: Sequence[System]) -> Iterable[str]:
    yield _joined(example.prompt)
    yield example.target or ""
    yield from (s.texts.get(example.id, "") for s in systems)


def _scores(judgements: Sequence[Judgement]) -> dict[tuple[str, str], tuple[float, float]]:
    return {(j.example_id, j.judge): (j.score, j.opponent_score) for j in judgements}


@dataclass(frozen=True, slots=True)
class _Packer:
    systems: Sequence[System]
    judges: Sequence[str]
    scores: Mapping[str, Mapping[tuple[str, str], tuple[float, float]]]
    cut: int
    grounded: bool

    def case(self, example: Example, prompt: Counter[str]) -> dict[str, Any]:
        """One example: prompt turns, one text a system, one [score, opponent's score] a judge and system."""
        references = [counts(r) for r in example.references]
        said: Counter[str] = sum(references, Counter())
        own = self.systems[0].texts.get(example.id)
        turns = (
            [("", example.prompt)]
            if isinstance(example.prompt, str)
            else [(m["role"], m["content"]) for m in example.prompt]
        )
        texts: list[Any] = [None]
        if example.target is not None:
            caught = mark_shared(self._kept(example.target), counts(own or ""))
            texts = [self._text(example.target, caught, ())]
        for s in self.systems:
            text = s.texts.get(example.id)
            if text is None:
                texts.append(None)
                continue
            marked = mark_answer(self._kept(text), prompt, references, grounded=self.grounded)
            texts.append(self._text(text, marked, s.notes.get(example.id, ())))
        return {
            "id": shown(example.id if len(example.id) <= NAME else f"{example.id[:NAME]}…"),
            "prompt": [[shown(role), *self._text(t, mark_shared(self._kept(t), said), ())] for role, t in turns],
            "texts": texts,
            "scores": [[self._score(s.key, example.id, j) for s in self.systems] for j in self.judges],
        }

    def _kept(self, text: str) -> str:
        return shown(text[: self.cut])

    def _text(self, text: str, marked: Marked, notes: Sequence[str]) -> list[Any]:
        """[pieces, words, characters left out, [green, yellow, red] words, notes]."""
        return [marked.runs, count_words(text), max(0, len(text) - self.cut), _found(marked), list(notes)]

    def _score(self, system: str, example: str, judge: str) -> list[float] | None:
        found = self.scores.get(system, {}).get((example, judge))
        return None if found is None else [_short(x) for x in found]


def _found(marked: Marked) -> list[int]:
    return [marked.counts.get(mark, 0) for mark in "gyr"]


def _short(value: float) -> float:
    return float(f"{value:.6g}")


_OUTCOMES: dict[str, tuple[str, ...]] = {
    Outcome.TRUNCATED: ("cut off",),
    Outcome.EMPTY: ("empty",),
    Outcome.TOO_LONG: ("prompt too long, not sent",),
    Outcome.REFUSED: ("refused",),
    Outcome.FILTERED: ("held back by a content filter",),
    Outcome.BAD_REQUEST: ("prompt not accepted",),
    Outcome.FAILED: ("no answer came",),
}
