"""The examples of a page: prompts, answers with their marks, and scores, small enough for one file."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from plad.evaluate.texts import count_words
from plad.records import STUDENT, STUDENT_SFT, TARGET, Example, Judgement, Outcome, Prompt
from plad.report.parts.blocks import Examples, ReportSection
from plad.report.parts.formatting import harmless, order_systems, system_name
from plad.report.parts.run_facts import EvaluatedAnswer, RunFacts
from plad.report.sections.keypoints import Marked, counts, mark_answer, mark_shared, share_in
from plad.text import redact

LIMIT = 1000  # examples a page holds at most
BUDGET = 2_300_000  # bytes of their data; with plots and tables the page stays below 3 MB
CUTS = (20_000, 8_000, 4_000, 2_500, 1_600, 1_000, 600, 300)  # characters of a text that are kept, tried in order
GROUNDED = 0.5  # share of the targets' content words that must stand in the prompts
_ID = 80  # characters of an id
_OUTCOMES: Mapping[str, str] = {
    Outcome.TRUNCATED: "cut off",
    Outcome.EMPTY: "empty",
    Outcome.TOO_LONG: "prompt too long, not sent",
    Outcome.REFUSED: "refused",
    Outcome.FILTERED: "held back by a content filter",
    Outcome.BAD_REQUEST: "prompt not accepted",
    Outcome.FAILED: "no answer came",
}
Scores = Mapping[tuple[str, str], tuple[float, float]]
"""Of an example and a judge: the answer's score and its opponent's."""


@dataclass(frozen=True, slots=True)
class ShownSystem:
    """Whose answers a page shows: a name for people, answers by example id, judgements against the target."""

    key: str
    name: str
    answers: Mapping[str, EvaluatedAnswer]
    judgements: Sequence[Judgement] = ()

    @property
    def scores(self) -> Scores:
        """By example and judge."""
        return {(j.example_id, j.judge): (j.score, j.opponent_score) for j in self.judgements}


def examples(facts: RunFacts) -> ReportSection | None:
    """The examples of one run: the distilled student is compared with the student before distillation first."""
    order = (STUDENT, STUDENT_SFT)
    systems = sorted(shown_systems(facts), key=lambda s: order.index(s.key) if s.key in order else len(order))
    return examples_section(facts.test, systems)


def examples_section(test: Mapping[str, Example], systems: Sequence[ShownSystem]) -> ReportSection | None:
    """The examples that these systems answered; None without any."""
    packed = pack(test, systems)
    return None if packed is None else ReportSection("examples", "Examples", "Examples", (packed,))


def shown_systems(facts: RunFacts) -> list[ShownSystem]:
    """The systems whose answers a run keeps."""
    judged = [j for j in facts.judgements if j.opponent == TARGET]
    return [
        ShownSystem(
            name,
            system_name(name),
            {i: row[name] for i, row in facts.answers.items() if name in row},
            [j for j in judged if j.system == name],
        )
        for name in order_systems(dict.fromkeys(s for row in facts.answers.values() for s in row if s != TARGET))
    ]


def pack(test: Mapping[str, Example], systems: Sequence[ShownSystem]) -> Examples | None:
    """Pack the examples that every page of these systems can show; None without answers.

    Args:
        test: rows by id.
        systems: in the order of the page; the answer that is compared first comes before its rival.
    """
    ids = [i for i in test if any(i in s.answers for s in systems)]
    if not ids:
        return None
    chosen = ids if len(ids) <= LIMIT else [ids[k * len(ids) // LIMIT] for k in range(LIMIT)]
    prompts = {i: counts(_joined(test[i].prompt)) for i in ids}
    targets = {i: counts(t) for i in ids if (t := test[i].target) is not None}
    grounded = share_in((targets[i], prompts[i]) for i in targets)
    unsupported = (grounded or 0.0) >= GROUNDED
    judges = list(dict.fromkeys(j.judge for s in systems for j in s.judgements))
    texts = [t for i in chosen for t in _texts(test[i], systems)]
    packed: list[str] = []
    cut = CUTS[-1]
    for cut in CUTS:
        if sum(len(t[:cut].encode("utf-8", "replace")) for t in texts) > BUDGET:
            continue
        packer = _Packer(systems, judges, cut, unsupported)
        packed = [embed(packer.example(test[i], prompts[i])) for i in chosen]
        if sum(len(row.encode()) for row in packed) <= BUDGET:
            break
    names = [["target", system_name(TARGET)], *([shown(s.key), shown(s.name)] for s in systems)]
    head = embed({"systems": names, "judges": [shown(j) for j in judges]})
    data = f'{head[:-1]},"cases":[{",".join(packed)}]}}'
    return Examples(data, names[1][1], len(chosen), len(ids), grounded, unsupported, cut)


def embed(value: object) -> str:
    """JSON in which nothing can end a script element or open a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def shown(text: str) -> str:
    """A name or text as a page may hold it."""
    return redact(harmless(text))


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    return [("", prompt)] if isinstance(prompt, str) else [(m["role"], m["content"]) for m in prompt]


def _joined(prompt: Prompt) -> str:
    return "\n\n".join(content for _, content in _turns(prompt))


def _texts(example: Example, systems: Sequence[ShownSystem]) -> Iterable[str]:
    yield _joined(example.prompt)
    yield example.target or ""
    yield from (s.answers[example.id].text for s in systems if example.id in s.answers)


@dataclass(frozen=True)
class _Packer:
    systems: Sequence[ShownSystem]
    judges: Sequence[str]
    cut: int
    unsupported: bool

    @cached_property
    def scores(self) -> list[Scores]:
        """One a system."""
        return [s.scores for s in self.systems]

    def example(self, row: Example, prompt: Counter[str]) -> dict[str, object]:
        """Prompt turns, one text a system, one [score, opponent's score] a judge and system."""
        references = [counts(r) for r in row.references]
        in_references = sum(references, Counter[str]())
        texts: list[object] = [None]
        if row.target is not None:
            first = self.systems[0].answers.get(row.id)
            texts = [self._text(row.target, mark_shared(self._kept(row.target), counts(first.text if first else "")))]
        for system in self.systems:
            answer = system.answers.get(row.id)
            if answer is None:
                texts.append(None)
                continue
            marked = mark_answer(self._kept(answer.text), prompt, references, grounded=self.unsupported)
            outcome = _OUTCOMES.get(answer.outcome)
            texts.append(self._text(answer.text, marked, f"{answer.tokens:,} tokens", *([outcome] if outcome else [])))
        return {
            "id": shown(row.id if len(row.id) <= _ID else f"{row.id[:_ID]}…"),
            "prompt": [
                [shown(role), *self._text(turn, mark_shared(self._kept(turn), in_references))]
                for role, turn in _turns(row.prompt)
            ],
            "texts": texts,
            "scores": [[_short(scores.get((row.id, judge))) for scores in self.scores] for judge in self.judges],
        }

    def _kept(self, text: str) -> str:
        return shown(text[: self.cut])

    def _text(self, text: str, marked: Marked, *notes: str) -> list[object]:
        """[pieces, words, characters left out, [green, yellow, red] words, notes]."""
        found = [marked.counts.get(mark, 0) for mark in "gyr"]
        return [marked.runs, count_words(text), max(0, len(text) - self.cut), found, list(notes)]


def _short(scores: tuple[float, float] | None) -> list[float] | None:
    return None if scores is None else [float(f"{x:.6g}") for x in scores]
