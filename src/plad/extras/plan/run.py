"""The plan of a run: what is asked, what it may cost, how long it takes at least, what memory and disk it needs."""

import contextlib
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plad.answers.fill import count_recorded
from plad.answers.ledger import Ledger
from plad.answers.paid import is_paid, spent
from plad.answers.question import AnswerSet, Sampling
from plad.answers.schema import AnswerSums
from plad.config.engines import BudgetSection
from plad.config.file import load_config
from plad.config.root import Config
from plad.data.prepare import Prepared, prepare
from plad.errors import PladError
from plad.extras.plan.hours import trainings
from plad.extras.plan.local import LocalTime, local_time
from plad.extras.plan.memory import Sizes, memory_and_disk
from plad.extras.plan.price import BatchTime, Line, PacedTime, Stop, budget_stop, wall_times
from plad.extras.plan.requests import AnswerRequests, VerdictRequests, answer_requests, distill_rows, verdict_requests
from plad.extras.plan.tokens import Counter, by_bytes, counter_of, mean_target, prompt_bytes
from plad.judges.base import kind_of
from plad.pipeline.keys import user_keys
from plad.pipeline.resources import Resources, weights_names
from plad.pipeline.stage import NAMES, STAGES
from plad.records import Outcome
from plad.rundir.directory import RunDir, check_place
from plad.rundir.manifest import FINGERPRINTS, Manifest, read_manifest

_LENGTHS = {Outcome.OK, Outcome.TRUNCATED}  # outcomes whose lengths tell something of further answers


@dataclass(frozen=True, slots=True)
class Usd:
    """US dollars, expected and at worst."""

    expected: float
    most: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has taken from providers already."""

    usd: float
    tokens: int


@dataclass(frozen=True, slots=True)
class BudgetOutlook:
    """The limits of a budget, and where they stop the run if answers cost what is expected, or all they can."""

    usd: float | None
    tokens: int | None
    expected: Stop | None
    worst: Stop | None


@dataclass(frozen=True, slots=True)
class Plan(Sizes):
    """What a run will ask, cost and need.

    Attributes:
        prompts: in use, by split.
        done: stages that need nothing more.
        tokens: how they are counted, by system.
        unpriced: endpoints that are asked and have no price.
        here: how long this machine works.
    """

    run: str
    prompts: dict[str, int]
    done: list[str]
    lines: list[Line]
    tokens: dict[str, str]
    usd: Usd
    unpriced: list[str]
    spent: Spent
    budget: BudgetOutlook | None
    time: list[PacedTime | BatchTime]
    here: LocalTime
    notes: list[str]


@dataclass
class _Progress:
    """What a run that was started has already.

    Attributes:
        done: stages that need nothing more; `changed` was made with other settings.
        spent: US dollars and tokens taken from providers.
        rows: the ledger by system, served model and outcome.
    """

    ctx: Resources
    ledger: Ledger | None = None
    done: set[str] = field(default_factory=set[str])
    changed: str | None = None
    spent: tuple[float, int] = (0.0, 0)
    rows: list[AnswerSums] = field(default_factory=list[AnswerSums])

    def mean_completion(self, system: str) -> float | None:
        """Mean tokens of a system's recorded answers."""
        rows = [r for r in self.rows if r["system"] == system and r["outcome"] in _LENGTHS]
        answers = sum(r["answers"] for r in rows)
        return sum(r["completion_tokens"] for r in rows) / answers if answers else None

    def latency(self, system: str) -> float | None:
        """Mean seconds of an answer that a system got over the network."""
        rows = [r for r in self.rows if r["system"] == system and is_paid(r["engine"]) and r["attempts"]]
        answers = sum(r["answers"] for r in rows)
        return sum(r["seconds"] * r["answers"] for r in rows) / answers if answers else None


def plan(path: Path, overrides: Sequence[str] = (), *, skip_invalid: bool = False, measure: bool = False) -> Plan:
    """Plan a run without asking or writing anything.

    Args:
        measure: time the models on this machine, for about 20 seconds; else none is loaded.

    Raises:
        PladError: config or data are wrong; all problems in one.
    """
    config = load_config(path, overrides)
    base = path.parent
    prepared = prepare(config, base=base, skip_invalid=skip_invalid)
    check_place(config.run.dir)
    endpoints = dict(config.endpoints())
    counters = {role: counter_of(config, role, base) for role in ("teacher", "student_sft")}
    with _read_progress(config, base) as progress:
        lines = [
            *(_answers(a, progress, counters) for a in answer_requests(config, prepared)),
            *(_verdicts(v, progress) for v in verdict_requests(config, prepared)),
        ]
        lines = [line if line.place is None else line.priced(endpoints[line.place]) for line in lines]
        lines.sort(key=lambda line: NAMES.index(line.stage))
        latency = {place: s for place in endpoints if (s := progress.latency(_asked_at(place, config))) is not None}
    kept = [line for line in lines if line.split != "validation"]
    recorded = sum(line.new for line in kept), sum(line.completion_tokens for line in kept)
    gpu = _has_gpu()
    sizes = memory_and_disk(config, prepared, base, counters, recorded, gpu=gpu)
    to_train = list(trainings(config, prepared, counters, progress.done))
    return Plan(
        memory=sizes.memory,
        gpu=sizes.gpu,
        disk=sizes.disk,
        weights=sizes.weights,
        size_notes=sizes.size_notes,
        run=str(config.run.dir),
        prompts=_prompts(config, prepared),
        done=[s for s in NAMES if s in progress.done],
        lines=lines,
        tokens={name: counter.how for name, counter in counters.items()},
        usd=Usd(sum(line.usd or 0.0 for line in lines), sum(line.most_usd or 0.0 for line in lines)),
        unpriced=[p for p, e in endpoints.items() if e.price is None and any(line.place == p for line in lines)],
        spent=Spent(*progress.spent),
        budget=config.budget and _budget(config.budget, lines, progress.spent),
        time=list(wall_times(lines, endpoints, latency)),
        here=local_time(config, prepared, base, lines, to_train, gpu=gpu, measure=measure),
        notes=[progress.changed] if progress.changed else [],
    )


@contextlib.contextmanager
def _read_progress(config: Config, base: Path) -> Generator[_Progress]:
    """What the run directory and its ledger hold; nothing where neither is there."""
    run = config.run.dir
    manifest = read_manifest(run) if (run / "manifest.json").is_file() else Manifest(fingerprints=FINGERPRINTS)
    file = Path(config.generate.ledger).expanduser() if config.generate.ledger else Manifest().ledger_file(run)
    progress = _Progress(Resources(config, RunDir(run, manifest), base))
    if manifest.stages:
        progress.done, progress.changed = _done(progress.ctx)
    if not file.is_file():
        yield progress
        return
    with Ledger(file, readonly=True) as ledger:
        progress.ledger, progress.spent, progress.rows = ledger, spent(ledger, manifest.id), ledger.summary()
        yield progress


def _done(ctx: Resources) -> tuple[set[str], str | None]:
    """The stages that the same command would pass over, and why the next is not one of them."""
    from plad.pipeline.run import inputs

    done: set[str] = set()
    for stage in STAGES:
        try:
            if not ctx.run.is_done(stage.name, inputs(ctx, stage), named=user_keys(ctx.config, stage.name)):
                return done, None
        except PladError as e:
            return done, e.what
        done.add(stage.name)
    return done, None


def _prompts(config: Config, prepared: Prepared) -> dict[str, int]:
    return {
        "sft": len(prepared.sft),
        "distill": len(distill_rows(config, prepared)),
        "validation": len(prepared.validation),
        "test": len(prepared.test),
    }


def _asked_at(place: str, config: Config) -> str:
    """The system whose answers an endpoint gives."""
    if place == "teacher.engine":
        return "teacher"
    judge = config.pairs.scorer if place == "pairs.scorer" else config.evaluate.judges[int(place.rpartition(".")[2])]
    assert judge is not None
    asked = kind_of(judge).asked
    return "" if asked is None else asked.system


def _answers(a: AnswerRequests, progress: _Progress, counters: Mapping[str, Counter]) -> Line:
    role = "teacher" if a.system == "teacher" or (a.stage == "sft" and not a.kept) else "student_sft"
    counter, engine = counters[role], progress.ctx.config.teacher.engine
    held = _held(a, progress)
    new = {e.id: a.samples - held.get(e.id, 0) for e in a.rows}
    n, total = sum(new.values()), a.samples * len(a.rows)
    place = "teacher.engine" if a.system == "teacher" and engine.paid else None
    if a.system == "teacher" and not (engine.paid or engine.local):
        return Line(a.stage, a.system, a.split, place, total, total - n, 0, 0, 0, 0, engine.behind)
    each, basis = _expected(a, progress, counter)
    prompt = sum(new[e.id] * counter.prompt(e) for e in a.rows if new[e.id])
    most = prompt if counter.exact else sum(new[e.id] * counter.most(e) for e in a.rows if new[e.id])
    tokens = prompt, round(n * each), most, n * a.max_new_tokens
    read = sum((1 if a.kept else new[e.id]) * counter.prompt(e) for e in a.rows if new[e.id])
    return Line(a.stage, a.system, a.split, place, total, total - n, *tokens, basis, read_tokens=read)


def _held(a: AnswerRequests, progress: _Progress) -> Mapping[str, int]:
    """Answers to each row that the run would not ask for again."""
    if a.stage in progress.done:
        return {e.id: a.samples for e in a.rows}
    names = _weights(a.system, progress) if a.kept else None
    if names is None or progress.ledger is None:
        return {}
    sampling, seed = Sampling(a.temperature, a.max_new_tokens, a.samples), progress.ctx.config.run.seed
    return count_recorded(a.rows, AnswerSet.of(a.system, names, sampling, seed), progress.ledger)


def _weights(system: str, progress: _Progress) -> tuple[str, ...] | None:
    """Fingerprints of who answers; None where the stage that makes it is not done."""
    made_by = {"teacher": "sft", "student_sft": "sft", "student": "distill"}
    stage = "distill" if system.startswith("student_round_") else made_by.get(system, "baselines")
    ready = system == "teacher" and not progress.ctx.config.teacher.sft
    if not ready and stage not in progress.done:
        return None
    try:
        return weights_names(progress.ctx, system)
    except PladError:  # a model that isn't there; validate says so
        return None


def _expected(a: AnswerRequests, progress: _Progress, counter: Counter) -> tuple[float, str]:
    """Tokens that an answer is expected to have, and why."""
    mean = progress.mean_completion(a.system) if a.kept else None
    if mean is not None:
        return min(mean, a.max_new_tokens), "the ledger"
    target = mean_target(a.rows, counter)
    return (a.max_new_tokens, "max_new_tokens") if target is None else (min(target, a.max_new_tokens), "the targets")


def _verdicts(v: VerdictRequests, progress: _Progress) -> Line:
    """So many questions a comparison, and canaries, each with the judge's frame, the prompt and both answers."""
    asked, rows = v.asked, len(v.rows)
    every = (asked.questions * rows + asked.canaries(rows)) * v.each
    total = 0 if v.stage in progress.done else every
    questions = total / rows if rows else 0.0
    target = mean_target(v.rows, by_bytes(""))
    expected = min(v.answer_tokens if target is None else target, v.answer_tokens)
    texts = rows * prompt_bytes(asked.frame)
    texts += sum(prompt_bytes(e.prompt) for e in v.rows)
    mean = progress.mean_completion(asked.system)
    reply = asked.max_new_tokens if mean is None else min(mean, asked.max_new_tokens)
    return Line(
        v.stage,
        asked.system,
        v.split,
        v.place,
        answers=every,
        held=every - total,
        prompt_tokens=round(questions * texts / 4 + total * 2 * expected),
        completion_tokens=round(total * reply),
        most_prompt_tokens=round(questions * texts) + total * 2 * v.answer_tokens,
        most_completion_tokens=total * asked.max_new_tokens,
        basis="max_new_tokens" if mean is None else "the ledger",
    )


def _budget(budget: BudgetSection, lines: Sequence[Line], spent: tuple[float, int]) -> BudgetOutlook:
    expected, worst = (budget_stop(budget, lines, spent, worst=worst) for worst in (False, True))
    return BudgetOutlook(budget.usd, budget.tokens, expected, worst)


def _has_gpu() -> bool:
    """Whether an NVIDIA GPU is there and not hidden, without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return sys.platform == "linux" and not hidden and any(Path("/dev").glob("nvidia[0-9]*"))
