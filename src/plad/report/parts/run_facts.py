"""Everything that a report says, read from the files of a run directory; what is missing is None or empty."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from pydantic import BaseModel, JsonValue, TypeAdapter

from plad.answers.ledger import Ledger
from plad.answers.paid import is_paid, purchases
from plad.answers.question import Sampling
from plad.answers.schema import Purchase
from plad.answers.speed import Speed, speed
from plad.data.formats import read_examples_jsonl
from plad.errors import RunDirError
from plad.evaluate.files import read_answers, read_judgements
from plad.evaluate.metrics import FILE as METRICS
from plad.evaluate.metrics import Metrics
from plad.records import Example, Judgement
from plad.report.parts.formatting import flatten
from plad.report.parts.stage_counts import DataCounts, DistillCounts, PairCounts
from plad.rundir.manifest import StageRecord, read_manifest
from plad.rundir.reading import reading

CONFIG = "config.resolved.json"
LOG = "metrics.jsonl"
_T = TypeVar("_T")
_ROW = TypeAdapter(dict[str, JsonValue])


class EvaluatedAnswer(BaseModel):
    """An answer of a system to a test row: how it ended, and its tokens."""

    text: str
    outcome: str
    tokens: int


@dataclass(frozen=True, slots=True)
class LogRow:
    """A row of metrics.jsonl: what was measured at a step of a training run, or on validation after it."""

    stage: str
    step: int
    values: Mapping[str, float]
    validation: bool = False

    @classmethod
    def of(cls, row: Mapping[str, JsonValue]) -> "LogRow":
        """The numbers of a line."""
        validation, step = row.get("validation"), row.get("step")
        values = validation if isinstance(validation, dict) else row
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        return cls(str(row.get("stage", "")), step if isinstance(step, int) else 0, numbers, "validation" in row)


@dataclass(frozen=True)
class RunFacts:
    """A run as its files tell it.

    Attributes:
        name: the directory's name.
        stages: those that are finished.
        versions: what it was made with.
        config: its settings, every default filled in.
        log: rows of metrics.jsonl.
        test: rows of data/test.jsonl by id.
        answers: of eval/answers.jsonl, example id -> system -> answer.
        paid: what providers answered.
        speeds: of the evaluated answers, by system.
        seq2seq: whether the student is an encoder-decoder model.
        missing: files that aren't there.
    """

    name: str
    stages: Mapping[str, StageRecord] = field(default_factory=dict[str, StageRecord])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    config: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    metrics: Metrics | None = None
    log: tuple[LogRow, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    test: Mapping[str, Example] = field(default_factory=dict[str, Example])
    answers: Mapping[str, Mapping[str, EvaluatedAnswer]] = field(
        default_factory=dict[str, Mapping[str, EvaluatedAnswer]]
    )
    paid: tuple[Purchase, ...] = ()
    speeds: Mapping[str, Speed] = field(default_factory=dict[str, Speed])
    seq2seq: bool = False
    missing: tuple[str, ...] = ()

    def counts(self, stage: str) -> Mapping[str, JsonValue]:
        """What a finished stage counted; empty for one that isn't finished."""
        return self.stages[stage].counts if stage in self.stages else {}

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens of an evaluated answer."""
        settings = dict(flatten(self.config))
        names = ("evaluate.max_new_tokens", "generate.max_new_tokens")
        return next((int(settings[name]) for name in names if settings.get(name, "").isdigit()), None)

    @cached_property
    def data(self) -> DataCounts:
        """What the stage `data` counted."""
        return DataCounts.model_validate(self.counts("data"))

    @cached_property
    def pair(self) -> PairCounts:
        """What the stage `pair` counted."""
        return PairCounts.model_validate(self.counts("pair"))

    @cached_property
    def distill(self) -> DistillCounts:
        """What the stage `distill` counted."""
        return DistillCounts.model_validate(self.counts("distill"))

    @property
    def alarms_of_baselines(self) -> Mapping[str, tuple[str, ...]]:
        """Signs of collapse in what the student is compared with, by method."""
        trained = self.counts("baselines").items()
        return {name: DistillCounts.model_validate(of).alarms for name, of in trained if isinstance(of, dict)}


def read_facts(path: Path) -> RunFacts:
    """Read a run directory.

    Raises:
        RunDirError: it holds no run, or one of its files is damaged.
    """
    manifest = read_manifest(path)
    missing: list[str] = []

    def of(name: str, read: Callable[[Path], _T], otherwise: _T) -> _T:
        if (path / name).exists():
            return read(path / name)
        missing.append(name)
        return otherwise

    settings = of(CONFIG, _settings, {})
    facts = RunFacts(
        name=path.resolve().name,
        stages=manifest.stages,
        versions=manifest.versions,
        config=settings,
        metrics=of(METRICS, lambda _: Metrics.read(path), None),
        log=of(LOG, lambda file: tuple(_log(file)), ()),
        judgements=of("eval/judgements.parquet", lambda file: tuple(read_judgements(file)), ()),
        test=of("data/test.jsonl", lambda file: {e.id: e for e in read_examples_jsonl(file)}, {}),
        answers=of("eval/answers.jsonl", _answers, {}),
        seq2seq=is_seq2seq(path),
    )
    try:
        with Ledger(manifest.ledger_file(path), readonly=True) as ledger:
            rows = purchases(ledger, manifest.owner)
            facts = replace(facts, paid=tuple(rows), speeds=_speeds(ledger, facts, manifest.owner))
    except RunDirError:
        if _asks_providers(settings):
            missing.append("readable ledger of answers")
    return replace(facts, missing=tuple(missing))


def is_seq2seq(run: Path) -> bool:
    """Whether the student of a run is an encoder-decoder model; False of one that is not there."""
    file = run / "student/config.json"
    if not file.is_file():
        return False
    with reading(file):
        config: object = json.loads(file.read_bytes())
        return isinstance(config, dict) and bool(cast("dict[str, object]", config).get("is_encoder_decoder"))


def _speeds(ledger: Ledger, facts: RunFacts, run: str | None) -> dict[str, Speed]:
    """How fast the evaluated answers came, of the systems whose answers the ledger holds."""
    settings = dict(flatten(facts.config))
    if facts.max_new_tokens is None:
        return {}
    sampling = Sampling(float(settings.get("evaluate.temperature", "0")), facts.max_new_tokens)
    systems = dict.fromkeys(s for row in facts.answers.values() for s in row)
    texts = {s: {i: row[s].text for i, row in facts.answers.items() if s in row} for s in systems}
    found = {s: speed(ledger, s, of, sampling, run) for s, of in texts.items()}
    return {s: measured for s, measured in found.items() if measured is not None}


def _answers(file: Path) -> dict[str, dict[str, EvaluatedAnswer]]:
    with reading(file):
        return {
            row["id"]: {system: EvaluatedAnswer.model_validate(answer) for system, answer in row["answers"].items()}
            for row in read_answers(file)
        }


def _asks_providers(settings: Mapping[str, JsonValue]) -> bool:
    """Whether a teacher or a judge stands behind an endpoint."""
    leaves = dict(flatten(settings))
    judges = [v for k, v in leaves.items() if k.startswith("evaluate.judges.") and k.endswith(".type")]
    return is_paid(str(leaves.get("teacher.engine.type", "transformers"))) or "llm" in judges


def _settings(file: Path) -> dict[str, JsonValue]:
    with reading(file, "plad run CONFIG writes it again"):
        return _ROW.validate_python(json.loads(file.read_bytes()))  # which may hold a lone surrogate


def _log(file: Path) -> Iterator[LogRow]:
    """Rows of a log; a last line without its end was being written when a run was killed, and is left out."""
    with reading(file):
        text = file.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        with reading(file, "plad run CONFIG leaves the line out", line=number):
            row = LogRow.of(_ROW.validate_json(line))
        yield row
